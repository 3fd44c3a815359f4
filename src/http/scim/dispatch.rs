//! From a request to its response: token, limits, body, route.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{Method, Request, Response};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::answer::Answer;
use super::calls::Call;
use super::discovery;
use super::route::{Route, split};
use super::service::Service;
use super::wait::EXCESS_RETRY_SECONDS;
use crate::scim::{GroupIntent, ListQuery, Projection, ResourceType, ScimError, UserIntent};
use crate::telemetry::{chain, instruments};

const MAX_BODY_BYTES: usize = 1 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const MEDIA_TYPES: [&str; 2] = ["application/scim+json", "application/json"];

/// The response to a request from this peer.
pub(super) async fn respond(service: Arc<Service>, peer: IpAddr, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let (account, path) = split(parts.uri.path());
    let route = Route::of(path);
    let has_no_groups = route.resource() == Some(ResourceType::Group) && !service.options.with_roles;
    let route = if has_no_groups { Route::Unknown } else { route };
    let mut call = None;
    let answer = if let Some(token) = service.authenticate(account, &parts.headers) {
        let base = format!("{}/scim/v2/{}", service.options.public_url, token.account);
        let call = call.insert(Call {
            deadline: started + service.options.patience,
            headers: parts.headers.clone(),
            projection: Projection::from_query_string(parts.uri.query().unwrap_or_default()),
            service: service.clone(),
            token,
            base,
            writes: Vec::new(),
            answered: None,
        });
        call.answer(route, &parts, body).await.unwrap_or_else(Answer::from)
    } else {
        service.count_failure(peer);
        Answer::unauthorized()
    };
    instruments::scim_request(route.name(), answer.status.as_u16());
    let writes = call.as_ref().map(|call| call.writes.as_slice()).unwrap_or_default();
    let request_id = writes.first().copied().unwrap_or_else(Uuid::new_v4).to_string();
    tracing::debug!(
        event = "scim.request",
        account_id = call.as_ref().map(|call| call.token.account.0),
        token = call.as_ref().map(|call| call.token.name.as_str()),
        method = %parts.method,
        route = route.name(),
        status = answer.status.as_u16(),
        ms = started.elapsed().as_millis(),
        request_id,
        "answered a SCIM request"
    );
    let answered =
        call.and_then(|call| Some((call.answered?, call.token.name))).filter(|_| answer.status.is_success());
    let answered = answered.map(|(write, token)| async move {
        if let Err(error) = service.store.scim_answered(write, &token).await {
            tracing::debug!(write_id = %write, error = %chain(&error), "could not record that a client received a result");
        }
    });
    answer.into_response(&request_id, answered)
}

impl Call {
    async fn answer(&mut self, route: Route<'_>, parts: &Parts, body: Body) -> Result<Answer, ScimError> {
        let Some(_entered) = self.service.enter(&self.token) else {
            let detail = "too many requests of this token are in progress; try again later";
            return Err(ScimError::unavailable(EXCESS_RETRY_SECONDS, detail));
        };
        if !route.allows(&parts.method) {
            return Ok(Answer::not_allowed(route.allowed()));
        }
        let query = parts.uri.query().unwrap_or_default();
        let with_groups = self.service.options.with_roles;
        if let Some(answer) = discovery::answer(route, query, &self.base, with_groups) {
            return answer;
        }
        if route == Route::NotImplemented {
            return Err(ScimError::new(501, "rosterd does not implement this resource"));
        }
        let Some(kind) = route.resource() else { return Err(no_resource()) };
        if route.changes(&parts.method) {
            self.require_write()?;
        }
        // The body first, so that a client does not send it in vain.
        let body = if parts.method == Method::DELETE { Bytes::new() } else { read_body(parts, body).await? };
        self.require_first_read(kind).await?;
        match kind {
            ResourceType::User => self.answer_of_users(route, &parts.method, query, &body).await,
            ResourceType::Group => self.answer_of_groups(route, &parts.method, query, &body).await,
        }
    }

    async fn answer_of_users(
        &mut self,
        route: Route<'_>,
        method: &Method,
        query: &str,
        body: &[u8],
    ) -> Result<Answer, ScimError> {
        match (route, method) {
            (Route::List(_), &Method::POST) => Box::pin(self.create(UserIntent::from_post(body)?)).await,
            (Route::List(_), _) => self.list(&ListQuery::from_query_string(query)?).await,
            (Route::Search(_), _) => self.list(&ListQuery::from_search_body(body)?).await,
            (Route::One(_, id), &Method::PUT) => Box::pin(self.change(id, UserIntent::from_put(body)?)).await,
            (Route::One(_, id), &Method::PATCH) => {
                Box::pin(self.change(id, UserIntent::from_patch(body)?)).await
            }
            (Route::One(_, id), &Method::DELETE) => Box::pin(self.delete(id)).await,
            (Route::One(_, id), _) => self.get(id).await,
            _ => Err(no_resource()),
        }
    }

    async fn answer_of_groups(
        &mut self,
        route: Route<'_>,
        method: &Method,
        query: &str,
        body: &[u8],
    ) -> Result<Answer, ScimError> {
        match (route, method) {
            (Route::List(_), &Method::POST) => {
                Box::pin(self.create_group(GroupIntent::from_body(body)?)).await
            }
            (Route::List(_), _) => self.list_groups(&ListQuery::from_query_string(query)?).await,
            (Route::Search(_), _) => self.list_groups(&ListQuery::from_search_body(body)?).await,
            (Route::One(_, id), &Method::PUT) => {
                Box::pin(self.change_group(id, GroupIntent::from_body(body)?)).await
            }
            (Route::One(_, id), &Method::PATCH) => {
                Box::pin(self.change_group(id, GroupIntent::from_patch(body)?)).await
            }
            (Route::One(_, id), &Method::DELETE) => Box::pin(self.delete_group(id)).await,
            (Route::One(_, id), _) => self.get_group(id).await,
            _ => Err(no_resource()),
        }
    }
}

fn no_resource() -> ScimError {
    ScimError::new(404, "there is no such resource")
}

async fn read_body(parts: &Parts, body: Body) -> Result<Bytes, ScimError> {
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let too_large = || ScimError::new(413, "the body is larger than 1 MiB");
    if header(CONTENT_LENGTH)
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| length > MAX_BODY_BYTES)
    {
        return Err(too_large());
    }
    let body = timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await;
    let body = body.map_err(|_| ScimError::new(408, "the body did not arrive within 10 s"))?;
    let body = body.map_err(|_| too_large())?;
    let media_type = header(CONTENT_TYPE).map(|value| value.split(';').next().unwrap_or_default().trim());
    if !body.is_empty()
        && media_type.is_some_and(|given| !MEDIA_TYPES.iter().any(|known| known.eq_ignore_ascii_case(given)))
    {
        return Err(ScimError::new(415, "send application/scim+json or application/json"));
    }
    Ok(body)
}
