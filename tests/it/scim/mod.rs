//! SCIM against the real program, the simulated Harvest and a real PostgreSQL: what a directory sends, what it gets, and what
//! Harvest, mirror and journal then have.

mod access;
mod conformance;
mod directories;
mod filters;
mod group_faults;
mod groups;
mod life_cycle;
mod limits;
mod lost_answers;
mod refusals;
mod separate_process;

use std::path::PathBuf;

use harvest_sim::{Company, Options};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::program::{Daemon, Program, free_port};
use crate::scene::Scene;

pub const WRITER: &str = "writer-0123456789abcdef0123456789abcdef";
pub const READER: &str = "reader-0123456789abcdef0123456789abcdef";
pub const ALL: &str = "create, update, deactivate, reactivate, delete";

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    head: String,
    pub body: Value,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {}", self.head, self.body);
        self
    }

    pub fn id(&self) -> String {
        self.body["id"].as_str().unwrap().to_owned()
    }
}

/// A directory that sends requests of SCIM.
pub struct Directory {
    pub scene: Scene,
    pub program: Program,
    address: String,
    tokens: TempDir,
}

impl Directory {
    pub async fn new() -> Self {
        Self::of(Options { limit: None, ..Options::default() }).await
    }

    pub async fn of(options: Options) -> Self {
        let scene = Scene::of(Company::seeded(5, 20, 40), options).await;
        let (mut program, tokens) = (scene.program(), tempfile::tempdir().unwrap());
        let address = format!("127.0.0.1:{}", free_port());
        program
            .set("ROSTERD__WRITE__MODE", "on")
            .set("ROSTERD__WRITE__ALLOW", ALL)
            .set("ROSTERD__SCIM__LISTEN", &address)
            .set("ROSTERD__SCIM__PUBLIC_URL", "https://scim.test")
            .set("ROSTERD__SCIM__TOKENS_FILE", tokens.path().join("tokens").to_str().unwrap());
        let directory = Self { scene, program, address, tokens };
        let account = directory.scene.sim.account_id();
        directory.set_tokens(&format!("{account} okta write {WRITER}\n{account} audit read {READER}\n"));
        directory
    }

    /// The base URL of the account's endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/scim/v2/{}", self.address, self.scene.sim.account_id())
    }

    pub fn set_tokens(&self, text: &str) {
        std::fs::write(self.tokens_file(), text).unwrap();
    }

    pub fn tokens_file(&self) -> PathBuf {
        self.tokens.path().join("tokens")
    }

    /// A daemon that serves SCIM, after the first full read.
    pub async fn start(&self) -> Daemon {
        self.program.call(&["sync"]).await.expect(0);
        let mut daemon = self.program.start();
        daemon.until("lease.acquired").await;
        daemon
    }

    fn request(&self, token: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> String {
        let account = self.scene.sim.account_id();
        let body = body.map(ToString::to_string).unwrap_or_default();
        let authorization =
            token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let path =
            if path.starts_with("/scim") { path.to_owned() } else { format!("/scim/v2/{account}{path}") };
        format!(
            "{method} {path} HTTP/1.0\r\nContent-Type: application/scim+json; charset=utf-8\r\n{authorization}Content-Length: \
             {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Sends a request and returns without waiting for the response.
    pub async fn begin(&self, method: &str, path: &str, body: &Value) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = self.request(Some(WRITER), method, path, Some(body));
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    pub async fn send_raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        answer(stream).await
    }

    pub async fn send_as(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        self.send_raw(&self.request(token, method, path, body)).await
    }

    pub async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send_as(Some(WRITER), method, path, Some(&body)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send_as(Some(WRITER), "GET", path, None).await
    }

    pub async fn delete(&self, id: &str) -> Answer {
        self.send_as(Some(WRITER), "DELETE", &format!("/Users/{id}"), None).await
    }

    /// Replaces one attribute.
    pub async fn patch(&self, id: &str, attribute: &str, value: Value) -> Answer {
        self.send("PATCH", &format!("/Users/{id}"), patch(attribute, value)).await
    }

    /// The writes that Harvest received since the last call, as method and path.
    pub fn sent(&self) -> Vec<String> {
        self.scene.sent()
    }
}

pub async fn answer(mut stream: TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text}"));
    let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body }
}

pub fn patch(attribute: &str, value: Value) -> Value {
    let mut operation = json!({"op": "replace", "path": attribute});
    operation["value"] = value;
    json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation]})
}

/// A user to create.
pub fn user(first: &str, last: &str) -> Value {
    let email = format!("{first}.{last}@example.com").to_lowercase();
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "userName": email,
        "externalId": format!("ext-{first}"),
        "name": {"givenName": first, "familyName": last},
        "emails": [{"type": "work", "primary": true, "value": email}],
        "active": true,
    })
}
