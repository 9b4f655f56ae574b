//! The one flat shape of all messages on the wire.
//!
//! Every value is a JSON object whose `type` says which of some dozen fields matter.
//! [`Fields`] reads it in one pass and borrows its texts from the record. Only the reader
//! of a type checks what a field has to be, so that no field of an unknown type, and no
//! unknown field, makes a record unreadable. `null` is the same as absent, and the last
//! of equal names counts, as in JavaScript. [`Message`] is the same shape for writing.
//!
//! A JavaScript string that was cut inside an emoji ends in half of a surrogate pair, which
//! `JSON.stringify` escapes (`"cut \ud83d"`) and no text here can hold. It is read as U+FFFD;
//! an id is not, for two ids could become one.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use turnstile_engine::{DecodeError, TimestampMs};

use crate::ids::Id;
use crate::instant::parse_iso8601;
use crate::price::{Amount, InvalidAmount, Price};

/// A message as it is written.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ticket_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) price: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payment_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<&'a str>,
}

impl Message<'_> {
    /// Appends the message as JSON.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("a flat message has nothing that JSON cannot say");
    }
}

/// A text field as it was read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Text<'a> {
    /// There is none, or it is `null`.
    #[default]
    Absent,
    /// It is a string.
    Is(Cow<'a, str>),
    /// It is a string with halves of surrogate pairs, each replaced by U+FFFD here. (A `String`
    /// would make every text larger.)
    Mended(Box<str>),
    /// It is something else.
    Other,
}

impl<'a> Text<'a> {
    fn is_usable(&self) -> bool {
        matches!(self, Text::Is(text) if !text.is_empty())
    }

    /// Reads a JSON value whose texts may have halves of surrogate pairs.
    fn mended(json: &'a str) -> Self {
        let whole = serde_json::from_str(json);
        let read = whole.or_else(|_| {
            let mut json = serde_json::Deserializer::from_str(json);
            json.deserialize_bytes(TextVisitor)
        });
        read.unwrap_or(Text::Other)
    }
}

/// A message as it was read.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    kind: Text<'a>,
    pub(crate) command_id: Text<'a>,
    pub(crate) attempt_id: Text<'a>,
    pub(crate) id: Text<'a>,
    pub(crate) order_id: Text<'a>,
    pub(crate) user_id: Text<'a>,
    pub(crate) ticket_id: Text<'a>,
    pub(crate) title: Text<'a>,
    price: Option<&'a RawValue>,
    expires_at: Text<'a>,
    version: Option<&'a RawValue>,
    pub(crate) payment_id: Text<'a>,
    pub(crate) token: Text<'a>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Name {
    Type,
    CommandId,
    AttemptId,
    Id,
    OrderId,
    UserId,
    TicketId,
    Title,
    Price,
    ExpiresAt,
    Version,
    PaymentId,
    Token,
    #[serde(other)]
    Unknown,
}

fn fault(kind: &'static str, message: impl Into<String>) -> DecodeError {
    DecodeError {
        kind,
        message: message.into(),
    }
}

impl<'a> Fields<'a> {
    /// Reads the value of a record.
    pub(crate) fn read(value: Option<&'a [u8]>) -> Result<Self, DecodeError> {
        let value = value.ok_or_else(|| fault("null_value", "the value is null"))?;
        serde_json::from_slice(value).or_else(|_| Self::mended(value))
    }

    /// Reads a value that may have halves of surrogate pairs. That takes longer, and hardly any
    /// value has them.
    #[cold]
    fn mended(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut json = serde_json::Deserializer::from_slice(value);
        let fields = json.deserialize_map(FieldsVisitor::<true>);
        let whole = fields.and_then(|fields| json.end().map(|()| fields));
        whole.map_err(|error| match error.classify() {
            serde_json::error::Category::Data => fault("not_object", error.to_string()),
            _ => fault("not_json", error.to_string()),
        })
    }

    /// What `type` says.
    pub(crate) fn kind(&self) -> Result<&str, DecodeError> {
        required("type", &self.kind)
    }

    /// The order's id in an event of Orders: `id`, or `orderId` where there is no `id`.
    pub(crate) fn id_of_order<T: Id>(&self) -> Result<T, DecodeError> {
        if self.id.is_usable() || !self.order_id.is_usable() {
            return id("id", &self.id);
        }
        id("orderId", &self.order_id)
    }

    /// The price as it was written.
    pub(crate) fn amount(&self) -> Result<Amount, DecodeError> {
        let raw = self.price.filter(|raw| raw.get() != "null");
        let raw = raw.ok_or_else(|| missing("price"))?;
        Amount::from_json(raw.get()).map_err(|error| bad_amount(&error))
    }

    /// The price, at least 0.
    pub(crate) fn price(&self) -> Result<Price, DecodeError> {
        self.amount()?
            .try_into()
            .map_err(|error| bad_amount(&error))
    }

    /// The version, a whole number of at least 0.
    pub(crate) fn version(&self) -> Result<u64, DecodeError> {
        let raw = self.version.filter(|raw| raw.get() != "null");
        let raw = raw.ok_or_else(|| missing("version"))?;
        let version = raw.get().parse();
        version.map_err(|_| {
            fault(
                "wrong_type",
                format!("version is {raw}, not a whole number"),
            )
        })
    }

    /// When the order expires.
    pub(crate) fn expires_at(&self) -> Result<TimestampMs, DecodeError> {
        let text = required("expiresAt", &self.expires_at)?;
        parse_iso8601(text).ok_or_else(|| {
            fault(
                "invalid_field",
                format!("expiresAt is {text:?}, not ISO-8601 with an offset"),
            )
        })
    }

    /// When the order expires, if that is usable: a reader that does not need it does not
    /// reject the record.
    pub(crate) fn optional_expires_at(&self) -> Option<TimestampMs> {
        self.expires_at().ok()
    }
}

fn bad_amount(error: &InvalidAmount) -> DecodeError {
    let kind = match error {
        InvalidAmount::NotANumber => "wrong_type",
        InvalidAmount::TooPrecise | InvalidAmount::Negative => "invalid_field",
    };
    fault(kind, format!("price is {error}"))
}

fn missing(name: &str) -> DecodeError {
    fault("missing_field", format!("{name} is missing"))
}

/// The text of a field that has to be there.
pub(crate) fn required<'t>(name: &str, text: &'t Text<'_>) -> Result<&'t str, DecodeError> {
    match text {
        Text::Absent => Err(missing(name)),
        Text::Is(text) => Ok(text),
        Text::Mended(text) => Ok(text),
        Text::Other => Err(fault("wrong_type", format!("{name} is not a string"))),
    }
}

/// The id in a field that has to be there.
pub(crate) fn id<T: Id>(name: &str, text: &Text<'_>) -> Result<T, DecodeError> {
    if let Text::Mended(text) = text {
        let message = format!("{name} has half of a surrogate pair: {text:?}");
        return Err(fault("invalid_field", message));
    }
    let text = required(name, text)?;
    T::of(text).map_err(|error| fault("invalid_field", format!("{name}: {error}")))
}

/// The id in a field, if it is usable: a reader that does not need it does not reject the record.
pub(crate) fn optional_id<T: Id>(text: &Text<'_>) -> Option<T> {
    match text {
        Text::Is(text) => T::of(text).ok(),
        Text::Absent | Text::Mended(_) | Text::Other => None,
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor::<false>)
    }
}

/// Reads halves of surrogate pairs if it `MENDS`.
struct FieldsVisitor<const MENDS: bool>;

impl<const MENDS: bool> FieldsVisitor<MENDS> {
    fn name<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Name>, A::Error> {
        if !MENDS {
            return map.next_key();
        }
        let json: Option<&RawValue> = map.next_key()?;
        Ok(json.map(|json| serde_json::from_str(json.get()).unwrap_or(Name::Unknown)))
    }

    fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Text<'de>, A::Error> {
        if !MENDS {
            return map.next_value();
        }
        let json: &RawValue = map.next_value()?;
        Ok(Text::mended(json.get()))
    }
}

impl<'de, const MENDS: bool> Visitor<'de> for FieldsVisitor<MENDS> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = Self::name(&mut map)? {
            let text = match name {
                Name::Type => &mut fields.kind,
                Name::CommandId => &mut fields.command_id,
                Name::AttemptId => &mut fields.attempt_id,
                Name::Id => &mut fields.id,
                Name::OrderId => &mut fields.order_id,
                Name::UserId => &mut fields.user_id,
                Name::TicketId => &mut fields.ticket_id,
                Name::Title => &mut fields.title,
                Name::ExpiresAt => &mut fields.expires_at,
                Name::PaymentId => &mut fields.payment_id,
                Name::Token => &mut fields.token,
                Name::Price => {
                    fields.price = Some(map.next_value()?);
                    continue;
                }
                Name::Version => {
                    fields.version = Some(map.next_value()?);
                    continue;
                }
                Name::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *text = Self::text(&mut map)?;
        }
        Ok(fields)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text::Is(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text::Is(Cow::Owned(text.to_owned())))
    }

    /// Half of a surrogate pair is three bytes here that occur in no UTF-8, the first of them 0xed.
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let mut mended = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            mended.push_str(chunk.valid());
            if chunk.invalid() == [0xed] {
                mended.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Ok(Text::Mended(mended.into()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Text::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Text::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Text::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Text::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Text::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{OrderId, TicketId};

    fn read(json: &str) -> Fields<'_> {
        Fields::read(Some(json.as_bytes())).unwrap()
    }

    fn fault_of(value: Option<&[u8]>) -> &'static str {
        Fields::read(value).unwrap_err().kind
    }

    #[test]
    fn values_that_are_no_json_object_say_so() {
        assert_eq!(fault_of(None), "null_value");
        for bad in [
            "",
            "{",
            "{\"type\":",
            "{\"type\":\"a\"} x",
            "nonsense",
            "{\"type\":\"\\ud800\"",
            "{\"type\":\"\\ud800\n\"}",
            "{\"type\":\"\\ud8\"}",
        ] {
            assert_eq!(fault_of(Some(bad.as_bytes())), "not_json", "{bad}");
        }
        assert_eq!(fault_of(Some(b"{\"type\":\"\xff\"}")), "not_json");
        for bad in ["null", "7", "\"text\"", "[]", "true"] {
            assert_eq!(fault_of(Some(bad.as_bytes())), "not_object", "{bad}");
        }
    }

    #[test]
    fn fields_nobody_asks_for_are_no_fault() {
        let fields =
            read(r#"{"type":"x","id":5,"title":{"a":[1,2]},"price":"p","version":-1,"new":[{}]}"#);
        assert_eq!(fields.kind(), Ok("x"));
        assert_eq!(fields.version().unwrap_err().kind, "wrong_type");
        assert_eq!(fields.price().unwrap_err().kind, "wrong_type");
        assert_eq!(
            id::<TicketId>("id", &fields.id).unwrap_err().kind,
            "wrong_type"
        );
    }

    #[test]
    fn null_is_absent_and_the_last_of_equal_names_counts() {
        let fields = read(r#"{"type":null,"id":"a","id":"b","price":null,"version":null}"#);
        assert_eq!(fields.kind().unwrap_err().kind, "missing_field");
        assert_eq!(fields.price().unwrap_err().kind, "missing_field");
        assert_eq!(fields.version().unwrap_err().kind, "missing_field");
        assert_eq!(id::<TicketId>("id", &fields.id).unwrap().as_str(), "b");
    }

    #[test]
    fn the_id_of_an_order_is_under_either_name() {
        let order = |json| read(json).id_of_order::<OrderId>().map(|id| id.to_string());
        assert_eq!(order(r#"{"id":"o"}"#).unwrap(), "o");
        assert_eq!(order(r#"{"orderId":"o"}"#).unwrap(), "o");
        assert_eq!(order(r#"{"id":"","orderId":"o"}"#).unwrap(), "o");
        assert_eq!(order(r#"{"id":"o","orderId":"p"}"#).unwrap(), "o");
        assert_eq!(order("{}").unwrap_err().kind, "missing_field");
        assert_eq!(order(r#"{"id":""}"#).unwrap_err().kind, "invalid_field");
    }

    #[test]
    fn texts_are_unescaped() {
        let fields = read(r#"{"title":"a \"b\" é😀","type":"t"}"#);
        assert_eq!(required("title", &fields.title), Ok("a \"b\" é😀"));
    }

    #[test]
    fn half_of_a_surrogate_pair_is_replaced_in_a_text() {
        for (json, text) in [
            (r#""cut \ud83d""#, "cut \u{fffd}"),
            (r#""\ude00 cut""#, "\u{fffd} cut"),
            (r#""\ud83d\ud83d\ude00\n""#, "\u{fffd}😀\n"),
            (
                r#""\ud83d\u0041é\ude00\ud83d""#,
                "\u{fffd}Aé\u{fffd}\u{fffd}",
            ),
        ] {
            let json = format!(r#"{{"title":{json},"type":"t\u0065","id":"a","price":1}}"#);
            let fields = read(&json);
            assert_eq!(required("title", &fields.title), Ok(text), "{json}");
            assert_eq!(fields.kind(), Ok("te"));
            assert_eq!(id::<TicketId>("id", &fields.id).unwrap().as_str(), "a");
            assert_eq!(fields.price().unwrap().to_string(), "1");
        }
    }

    #[test]
    fn half_of_a_surrogate_pair_is_no_fault_where_nobody_asks() {
        for unasked in [
            r#""new":"\ud83d""#,
            r#""\ud83d":1"#,
            r#""new":[{"\ud83d":"\ud83d"}]"#,
            r#""title":[{"\ud83d":"\ud83d"}]"#,
            r#""title":{"\ud83d":"\ud83d"}"#,
            r#""userId":"\ud83d""#,
        ] {
            let json = format!(r#"{{"type":"t",{unasked},"id":"a"}}"#);
            let fields = read(&json);
            assert_eq!(fields.kind(), Ok("t"), "{json}");
            assert_eq!(id::<TicketId>("id", &fields.id).unwrap().as_str(), "a");
            assert_eq!(optional_id::<TicketId>(&fields.user_id), None);
        }
    }

    #[test]
    fn an_id_is_taken_as_it_is_or_not_at_all() {
        let fields = read(r#"{"id":"a\ud83d","orderId":"o"}"#);
        let fault = id::<TicketId>("id", &fields.id).unwrap_err();
        assert_eq!(fault.kind, "invalid_field");
        assert!(fault.message.contains("surrogate"), "{}", fault.message);
        assert_eq!(fields.id_of_order::<OrderId>().unwrap().as_str(), "o");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            prop_assert!(Fields::read(Some(&bytes)).is_ok() || fault_of(Some(&bytes)) != "null_value");
        }

        #[test]
        fn any_json_in_any_field_is_read(
            name in "type|id|orderId|price|version|expiresAt|title|other",
            value in "null|true|-?[0-9]{1,30}|[0-9]{1,5}\\.[0-9]{1,5}|\"[a-z]{0,5}\"|\"\\\\ud[89a-f][0-9a-f]{2}\"|\\[1,\\[\\]\\]|\\{\"a\":1\\}",
        ) {
            prop_assume!(!value.starts_with('0') && !value.starts_with("-0"));
            let json = format!("{{\"{name}\":{value}}}");
            let fields = Fields::read(Some(json.as_bytes())).unwrap();
            prop_assert!(fields.version().is_err() || name == "version");
            prop_assert!(fields.price().is_err() || name == "price");
        }
    }
}
