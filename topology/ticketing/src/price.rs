//! Money: exact decimals, written as the JSON numbers they were read from.
//!
//! A JSON number is kept digit for digit as far as 28 digits go and refused beyond:
//! nothing is rounded, and nothing passes through binary floating point.

use std::fmt;

use rust_decimal::Decimal;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;

/// An amount of money as somebody wrote it: any exact decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount(Decimal);

/// What a ticket costs: an amount of at least 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price(Decimal);

/// A JSON value that is no amount or no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidAmount {
    /// It is not a JSON number.
    #[error("not a number")]
    NotANumber,
    /// It has more digits than can be kept.
    #[error("a number that needs more than 28 digits")]
    TooPrecise,
    /// It is less than 0.
    #[error("less than 0")]
    Negative,
}

impl Amount {
    /// Reads the text of a JSON number.
    ///
    /// # Errors
    ///
    /// When `text` is not one, or has too many digits to be kept exactly.
    pub fn from_json(text: &str) -> Result<Self, InvalidAmount> {
        if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Err(InvalidAmount::NotANumber);
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (text, None),
        };
        let mantissa = Decimal::from_str_exact(mantissa).map_err(|error| match error {
            rust_decimal::Error::ErrorString(_) => InvalidAmount::NotANumber,
            _ => InvalidAmount::TooPrecise,
        })?;
        let Some(exponent) = exponent else {
            return Ok(Self(mantissa));
        };
        let digits = exponent.trim_start_matches(['+', '-']);
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(InvalidAmount::NotANumber);
        }
        let exponent: i32 = exponent.parse().map_err(|_| InvalidAmount::TooPrecise)?;
        shifted(mantissa, exponent)
            .map(Self)
            .ok_or(InvalidAmount::TooPrecise)
    }

    /// The amount as a decimal.
    #[must_use]
    pub fn decimal(self) -> Decimal {
        self.0
    }
}

/// `mantissa` times ten to the power of `exponent`, unless that cannot be kept exactly.
fn shifted(mantissa: Decimal, exponent: i32) -> Option<Decimal> {
    if mantissa.is_zero() {
        return Some(Decimal::ZERO);
    }
    let mut shifted = mantissa.normalize();
    let scale = i64::from(shifted.scale()) - i64::from(exponent);
    if let Ok(scale) = u32::try_from(scale) {
        shifted.set_scale(scale).ok()?;
        return Some(shifted);
    }
    shifted.set_scale(0).ok()?;
    for _ in scale..0 {
        shifted = shifted.checked_mul(Decimal::TEN)?;
    }
    Some(shifted)
}

impl Price {
    /// The price as a decimal.
    #[must_use]
    pub fn decimal(self) -> Decimal {
        self.0
    }
}

impl TryFrom<Amount> for Price {
    type Error = InvalidAmount;

    fn try_from(Amount(decimal): Amount) -> Result<Self, InvalidAmount> {
        if decimal.is_sign_negative() && !decimal.is_zero() {
            return Err(InvalidAmount::Negative);
        }
        Ok(Self(decimal.abs()))
    }
}

impl From<Decimal> for Amount {
    fn from(decimal: Decimal) -> Self {
        Self(decimal)
    }
}

impl From<Price> for Amount {
    fn from(Price(decimal): Price) -> Self {
        Self(decimal)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As a JSON number.
impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = RawValue::from_string(self.0.to_string()).map_err(S::Error::custom)?;
        number.serialize(serializer)
    }
}

/// As a JSON number.
impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Amount::from(*self).serialize(serializer)
    }
}

/// From a JSON number; from JSON text only.
impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_json(number.get()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        for (text, written) in [
            ("0", "0"),
            ("10", "10"),
            ("10.50", "10.50"),
            ("0.1", "0.1"),
            ("-3.2", "-3.2"),
            ("1e3", "1000"),
            ("1.25E+1", "12.5"),
            ("125e-2", "1.25"),
            ("0e999", "0"),
            ("9007199254740993", "9007199254740993"),
            (
                "0.1000000000000000055511151231",
                "0.1000000000000000055511151231",
            ),
        ] {
            let amount = Amount::from_json(text).unwrap();
            assert_eq!(serde_json::to_string(&amount).unwrap(), written, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_kept_exactly_is_refused() {
        for text in [
            "1e29",
            "1e-29",
            "0.12345678901234567890123456789",
            "1e99999999999",
        ] {
            assert_eq!(
                Amount::from_json(text),
                Err(InvalidAmount::TooPrecise),
                "{text}"
            );
        }
        for text in ["\"10\"", "null", "true", "[1]", "{}", "", "1e", "1e+", "+1"] {
            assert_eq!(
                Amount::from_json(text),
                Err(InvalidAmount::NotANumber),
                "{text}"
            );
        }
    }

    #[test]
    fn a_price_is_at_least_zero() {
        let price = |text| Amount::from_json(text).and_then(Price::try_from);
        assert_eq!(price("-0.01"), Err(InvalidAmount::Negative));
        assert_eq!(price("-0").unwrap().to_string(), "0");
        assert_eq!(price("12.30").unwrap().to_string(), "12.30");
    }
}
