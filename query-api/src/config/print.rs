//! The effective configuration, as a file that sets the same.
//!
//! Each line says where its value came from. Secrets are left out, so that the text
//! can be shown to anybody.

use std::fmt::Write as _;

use super::setting::{INSTANCE_ID, SETTINGS};
use super::{Config, Layers};

/// The settings as TOML.
#[must_use]
pub fn print(layers: &Layers, config: &Config) -> String {
    let listens_on = config.http_addr.parse().ok();
    let advertised = listens_on.and_then(|bound| config.advertised(bound));
    let advertised = advertised.or_else(|| config.advertised_addr.clone());
    let mut lines = String::new();
    for setting in SETTINGS {
        let (said, origin) = layers.value(setting);
        let value = match setting.name {
            // Without a wildcard, it is the address that the instance listens on.
            "advertised-addr" => advertised.as_deref().unwrap_or_default(),
            name if name == INSTANCE_ID.name => &config.instance_id,
            _ => said,
        };
        let line = if setting.secret && !value.is_empty() {
            format!("# {} is set and not shown", setting.key())
        } else {
            let value = toml::Value::String(value.to_owned());
            format!("{} = {value}", setting.key())
        };
        writeln!(lines, "{line:<60} # {origin}").expect("a String takes what is written to it");
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_printed_can_be_read_again_and_has_no_secret() {
        let file = BTreeMap::from([
            ("partitions", "12".to_owned()),
            ("jwt-key", "0123456789abcdef".to_owned()),
            ("cluster-key", "fedcba9876543210".to_owned()),
            ("kafka-properties", "sasl.password=hunter2".to_owned()),
        ]);
        let layers = Layers {
            file,
            ..Layers::default()
        };
        let text = print(&layers, &Config::read(&layers).unwrap());
        for secret in ["0123456789abcdef", "fedcba9876543210", "hunter2"] {
            assert!(!text.contains(secret), "{text}");
        }
        let again: toml::Table = text.parse().unwrap();
        assert_eq!(again["partitions"].as_str(), Some("12"));
        assert!(
            text.lines()
                .any(|line| line.starts_with("partitions") && line.ends_with("# file"))
        );
    }
}
