//! A committed record, as a reader from outside sees it.

use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp};
use serde_json::Value;

/// A committed record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, String)>,
    /// When the broker appended it, in ms since the epoch.
    pub(crate) appended_ms: i64,
}

impl Record {
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = message.headers().map(|headers| {
            let headers = headers.iter();
            headers
                .map(|header| (header.key.to_owned(), text(header.value)))
                .collect()
        });
        let Timestamp::LogAppendTime(appended_ms) = message.timestamp() else {
            // Internal topics have times of creation, which nothing here goes by.
            return Self::without_time(message, headers.unwrap_or_default());
        };
        Self {
            appended_ms,
            ..Self::without_time(message, headers.unwrap_or_default())
        }
    }

    fn without_time(message: &BorrowedMessage<'_>, headers: Vec<(String, String)>) -> Self {
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            appended_ms: 0,
        }
    }

    /// The value, or null where it is no JSON.
    pub(crate) fn json(&self) -> Value {
        let value = self.value.as_deref().unwrap_or_default();
        serde_json::from_slice(value).unwrap_or_default()
    }

    pub(crate) fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(header, _)| header == name);
        header.map(|(_, value)| value.as_str())
    }
}

/// A field of an event, or nothing where there is none.
pub(crate) fn text<'v>(event: &'v Value, field: &str) -> &'v str {
    event.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The type of an event.
pub(crate) fn kind(event: &Value) -> &str {
    text(event, "type")
}

/// The order that an event of any topic but `tickets` is about.
pub(crate) fn order_of(event: &Value) -> &str {
    let order = text(event, "orderId");
    if order.is_empty() {
        text(event, "id")
    } else {
        order
    }
}
