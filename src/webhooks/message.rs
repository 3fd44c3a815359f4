//! The messages: an event of the outbox, or a message that is no event.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::store::webhooks::WebhookEvent;
use crate::store::webhooks::notices::{KnownNotice, NoticeState};

/// A message without its signature, which each attempt makes again.
#[derive(Clone)]
pub(crate) struct Message {
    /// `webhook-id`: the same at every attempt.
    pub id: Uuid,
    pub r#type: String,
    /// JSON text: the bytes that are signed and sent.
    pub body: String,
}

/// Namespace of the ids of messages that are no events.
const NAMESPACE: Uuid = Uuid::from_u128(0x8c2b_6a5e_91d4_5f0c_b1a7_43f6_5e0d_27c9);

/// Emitted before the first event of another stream: the database was restored to an earlier state.
pub(crate) const STREAM_BEGUN: &str = "rosterd.stream_begun";
/// Sent by `rosterd webhooks test`.
pub(crate) const TEST: &str = "rosterd.test";
/// A concern has begun: a person is needed.
const ATTENTION_NEEDED: &str = "rosterd.attention_needed";
/// The concern has ended.
const ATTENTION_OVER: &str = "rosterd.attention_over";

impl Message {
    /// The message of an event; `None` if the endpoint does not want it.
    pub fn of(event: &WebhookEvent) -> Option<Self> {
        let data = event.data.as_ref()?;
        // Types, times and numbers need no escaping, and `data` is JSON already.
        let body = format!(
            r#"{{"type":"{}","timestamp":"{}","seq":{},"recorded_at":"{}","data":{data}}}"#,
            event.r#type,
            time(event.occurred_at, SecondsFormat::Secs),
            event.seq,
            time(event.recorded_at, SecondsFormat::Millis),
        );
        Some(Self { id: event.id, r#type: event.r#type.clone(), body })
    }

    /// A message that is no event. Messages with equal `type`, `webhook` and `stream` have equal ids.
    pub fn control(r#type: &'static str, webhook: &str, stream: Uuid, now: DateTime<Utc>) -> Self {
        Self {
            id: Uuid::new_v5(&NAMESPACE, format!("{type}/{webhook}/{stream}").as_bytes()),
            r#type: r#type.to_owned(),
            // The settings allow only letters, digits and hyphens in `webhook`.
            body: format!(
                r#"{{"type":"{type}","timestamp":"{}","data":{{"webhook":"{webhook}","stream_id":"{stream}"}}}}"#,
                time(now, SecondsFormat::Secs)
            ),
        }
    }

    /// The message about a concern, the same at every attempt.
    pub fn notice(webhook: &str, notice: &KnownNotice) -> Self {
        let is_over = notice.state == NoticeState::Over;
        let ended_at = notice.absent_since.filter(|_| is_over);
        let r#type = if is_over { ATTENTION_OVER } else { ATTENTION_NEEDED };
        let mut data = notice.data.as_object().cloned().unwrap_or_default();
        data.insert("webhook".to_owned(), webhook.into());
        data.insert("began_at".to_owned(), time(notice.began_at, SecondsFormat::Millis).into());
        if let Some(ended_at) = ended_at {
            data.insert("ended_at".to_owned(), time(ended_at, SecondsFormat::Millis).into());
        }
        let data = Value::Object(data);
        let name = format!("{type}/{webhook}/{}/{}", notice.concern, notice.began_at.timestamp_micros());
        Self {
            id: Uuid::new_v5(&NAMESPACE, name.as_bytes()),
            r#type: r#type.to_owned(),
            body: format!(
                r#"{{"type":"{type}","timestamp":"{}","data":{data}}}"#,
                time(ended_at.unwrap_or(notice.began_at), SecondsFormat::Secs)
            ),
        }
    }
}

fn time(time: DateTime<Utc>, precision: SecondsFormat) -> String {
    time.to_rfc3339_opts(precision, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_json_and_keep_their_id() {
        let event = WebhookEvent {
            seq: 812,
            id: Uuid::from_u128(7),
            aggregatetype: "user".to_owned(),
            aggregateid: "1/2".to_owned(),
            r#type: "user.updated".to_owned(),
            occurred_at: "2026-03-03T09:14:12Z".parse().unwrap(),
            recorded_at: "2026-03-03T09:15:00.482123Z".parse().unwrap(),
            data: Some(r#"{"id": 2}"#.to_owned()),
        };
        let message = Message::of(&event).unwrap();
        let expected = r#"{"type":"user.updated","timestamp":"2026-03-03T09:14:12Z","seq":812,"recorded_at":"2026-03-03T09:15:00.482Z","data":{"id": 2}}"#;
        assert_eq!((message.id, message.body.as_str()), (event.id, expected));
        assert!(Message::of(&WebhookEvent { data: None, ..event }).is_none());

        let control = |stream, now: &str| {
            Message::control(STREAM_BEGUN, "bot", Uuid::from_u128(stream), now.parse().unwrap())
        };
        let (one, later) = (control(1, "2026-03-03T09:00:00Z"), control(1, "2026-03-04T09:00:00Z"));
        assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&one.body).is_ok());
        assert_eq!(one.id, later.id);
        assert_ne!(one.id, control(2, "2026-03-03T09:00:00Z").id);
    }
}
