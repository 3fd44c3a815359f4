use std::{
    io::{Read, Write},
    net::TcpListener,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tracing::{debug, error, info, subscriber::with_default, trace, warn};

use super::*;

/// Receives the lines instead of stderr.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn objects(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: Format, filter: &str, log: impl FnOnce()) -> Lines {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = subscriber(format, filter, false, move || writer.clone()).unwrap();
    with_default(subscriber, log);
    lines
}

#[test]
fn json_line_is_one_flat_object_with_timestamp_level_message_and_event_first() {
    let lines = logged(Format::Json, "info", || {
        info!(
            event = "cycle.finished",
            account_id = 7,
            duration_ms = 2000_u64,
            rate = 0.5,
            held = true,
            mode = %"full",
            resource = "users",
            "cycle finished: {} \"users\"\nchanged",
            3
        );
    });
    let mut line = lines.objects().remove(0);
    let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
    assert!(timestamp.as_str().unwrap().ends_with('Z'));
    assert_eq!(
        line,
        json!({
            "level": "INFO", "message": "cycle finished: 3 \"users\"\nchanged", "event": "cycle.finished",
            "account_id": 7, "duration_ms": 2000, "rate": 0.5, "held": true, "mode": "full",
            "resource": "users", "target": module_path!()
        })
    );
    let text = lines.text();
    assert_eq!(text.lines().count(), 1);
    let places =
        ["{\"timestamp\":", "\"level\":", "\"message\":", "\"event\":"].map(|name| text.find(name).unwrap());
    assert!(places.is_sorted());
}

#[test]
fn json_line_without_an_event_has_its_module_as_target() {
    let lines = logged(Format::Json, "info", || info!("hello"));
    assert_eq!(lines.objects()[0]["target"], module_path!());
}

#[test]
fn library_line_has_the_event_library_and_warn_at_most() {
    let log = || {
        error!(target: "sqlx::query", event = "panic", rows = 3, "odd");
        tracing::event!(target: "log", tracing::Level::WARN, log.target = "rustls::conn", "closed");
        info!(target: "rosterdish", "another crate");
        error!(event = "panic", "this crate");
    };
    let lines = logged(Format::Json, "info", log).objects();
    let shown: Vec<_> = lines.iter().map(|line| [&line["level"], &line["event"], &line["target"]]).collect();
    let expected = [
        json!(["WARN", "library", "sqlx::query"]),
        json!(["WARN", "library", "rustls::conn"]),
        json!(["INFO", "library", "rosterdish"]),
        json!(["ERROR", "panic", module_path!()]),
    ];
    assert_eq!(json!(shown), json!(expected));
    assert_eq!(lines[0]["rows"], 3);
    let text = logged(Format::Pretty, "info", log).text();
    let lines: Vec<_> = text.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
    assert_eq!(
        lines,
        [
            r#" WARN odd event="panic" rows=3 event="library" target="sqlx::query""#,
            r#" WARN closed event="library" target="rustls::conn""#,
            r#" INFO another crate event="library" target="rosterdish""#,
            r#"ERROR this crate event="panic""#,
        ]
    );
}

#[test]
fn text_line_without_colors_has_no_escape_codes() {
    let lines = logged(Format::Pretty, "info", || info!(account_id = 7, "cycle finished"));
    assert!(lines.text().ends_with("INFO cycle finished account_id=7\n"), "{}", lines.text());
}

#[test]
fn libraries_log_warnings_unless_named_and_never_bodies() {
    let log = || {
        trace!(target: "hyper::proto", "trace");
        debug!(target: "hyper_util::client", "debug");
        warn!(target: "h2::codec", "warn");
        error!(target: "reqwest", "error");
        trace!(target: "sqlx::query", "statement");
        trace!(target: "rosterd::sync", "rosterd");
    };
    for (filter, expected) in [
        ("trace", vec!["warn", "error", "rosterd"]),
        ("trace,hyper=trace,sqlx=trace", vec!["debug", "warn", "error", "statement", "rosterd"]),
        ("info,hyper_util=trace", vec!["debug", "warn", "error"]),
        ("error", vec!["error"]),
        ("off", vec![]),
        ("off,rosterd=trace", vec!["rosterd"]),
    ] {
        let lines = logged(Format::Json, filter, log);
        let messages: Vec<_> =
            lines.objects().iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect();
        assert_eq!(messages, expected, "{filter}");
    }
}

#[test]
fn token_header_and_body_of_a_request_are_not_logged_at_any_level() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let harvest = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let read = client.read(&mut [0; 4096]).unwrap();
        client
            .write_all(b"HTTP/1.1 200 OK\r\nx-name: canary-header\r\ncontent-length: 11\r\n\r\ncanary-body")
            .unwrap();
        read
    });
    _ = rustls::crypto::ring::default_provider().install_default();
    let named: Vec<_> = NOISY.iter().map(|(library, _)| format!("{library}=trace")).collect();
    let lines = logged(Format::Json, &format!("trace,{}", named.join(",")), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let body = runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = client.get(format!("http://{address}/v2/users")).bearer_auth("canary-token");
            request.send().await.unwrap().text().await.unwrap()
        });
        assert_eq!(body, "canary-body");
    });
    assert!(harvest.join().unwrap() > 0);
    let text = lines.text();
    assert!(text.contains("\"target\":\"hyper"), "the libraries logged nothing: {text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn panic_is_logged_as_one_line_without_data() {
    let this_thread = thread::current().id();
    let original = Arc::new(panic::take_hook());
    let for_other_threads = Arc::clone(&original);
    panic::set_hook(Box::new(move |panic| {
        if thread::current().id() == this_thread { log_panic(panic) } else { for_other_threads(panic) }
    }));
    let lines = logged(Format::Json, "info", || {
        let name = String::from("Jané Canary");
        _ = panic::catch_unwind(AssertUnwindSafe(|| name[..4].len()));
        _ = panic::catch_unwind(|| panic!("a literal"));
    });
    panic::set_hook(Box::new(move |panic| original(panic)));
    let [quoting, literal] = &lines.objects()[..] else { panic!("two lines: {}", lines.text()) };
    assert_eq!((&quoting["event"], &quoting["level"]), (&json!("panic"), &json!("ERROR")));
    assert!(quoting["location"].as_str().unwrap().starts_with("src/telemetry/logs/tests.rs:"));
    assert!(!lines.text().contains("Canary"));
    assert_eq!(literal["cause"], "a literal");
}

#[test]
fn invalid_filter_is_refused() {
    let refused = subscriber(Format::Json, "info,rosterd=loud", false, io::sink).err().unwrap();
    assert_eq!(refused.to_string(), "the log filter \"info,rosterd=loud\" is invalid");
}
