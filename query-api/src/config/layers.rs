//! The layers of the configuration: flag over environment over file over default.
//!
//! An empty environment variable counts as not set: that is how compose files pass
//! on variables that nobody has set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::ConfigError;
use super::pieces;
use super::setting::{Origin, SETTINGS, Setting};

/// The values that settings were given, by setting name, in each layer.
#[derive(Debug, Default)]
pub struct Layers {
    /// From the command line.
    pub flags: BTreeMap<&'static str, String>,
    /// From the environment.
    pub environment: BTreeMap<&'static str, String>,
    /// From the configuration file.
    pub file: BTreeMap<&'static str, String>,
    /// Which of the settings in the file are tables there.
    pub tables: BTreeSet<&'static str>,
}

impl Layers {
    /// The effective value of `setting`, and where it was set.
    #[must_use]
    pub fn value(&self, setting: &Setting) -> (&str, Origin) {
        let layers = [
            (&self.flags, Origin::Flag),
            (&self.environment, Origin::Environment),
            (&self.file, Origin::File),
        ];
        let said = layers
            .into_iter()
            .find_map(|(layer, origin)| Some((layer.get(setting.name)?.as_str(), origin)));
        said.unwrap_or((setting.default, Origin::Default))
    }

    /// Whether the effective value of `setting` was given as a table, so that its values are taken
    /// as they are.
    #[must_use]
    pub fn is_table(&self, setting: &Setting) -> bool {
        self.value(setting).1 == Origin::File && self.tables.contains(setting.name)
    }
}

/// The settings that `variable` knows.
pub fn environment(variable: impl Fn(&str) -> Option<String>) -> BTreeMap<&'static str, String> {
    let said = |setting: &&'static Setting| {
        let value = variable(setting.variable).filter(|value| !value.is_empty())?;
        Some((setting.name, value))
    };
    SETTINGS.iter().filter_map(said).collect()
}

/// The layer of the TOML file at `path`, alone.
///
/// # Errors
///
/// When it cannot be read, is not TOML, or has a key that is not a setting.
pub fn file(path: &Path) -> Result<Layers, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::UnreadableFile {
        path: path.to_owned(),
        source,
    })?;
    settings_of(&text).map_err(|why| ConfigError::InvalidFile {
        path: path.to_owned(),
        why,
    })
}

fn settings_of(text: &str) -> Result<Layers, String> {
    let table: toml::Table = text.parse().map_err(|error| complaint(text, &error))?;
    let mut layers = Layers::default();
    for (name, value) in &table {
        let setting = SETTINGS.iter().find(|setting| setting.key() == *name);
        let setting = setting.ok_or_else(|| format!("there is no setting {name}"))?;
        if value.is_table() {
            layers.tables.insert(setting.name);
        }
        let value = text_of(value).ok_or_else(|| format!("{name} is no text, number or list"))?;
        layers.file.insert(setting.name, value);
    }
    Ok(layers)
}

/// What is wrong with `text`, and in which line; never the line itself, since it may hold a
/// secret.
fn complaint(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {}", error.message())
        }
        None => error.message().to_owned(),
    }
}

/// A TOML value as it would be given to a flag: lists and tables are comma-separated, and
/// commas in the values of a table are escaped.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(text_of).collect();
            Some(items?.join(","))
        }
        toml::Value::Table(entries) => {
            let entry =
                |(key, value): (&String, &toml::Value)| Some(format!("{key}={}", text_of(value)?));
            let entries: Option<Vec<_>> = entries.iter().map(entry).collect();
            Some(pieces::join(entries?))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, setting};
    use super::*;

    #[test]
    fn flag_over_environment_over_file_over_default() {
        let mut layers = Layers::default();
        let in_force = |layers: &Layers| {
            let (value, origin) = layers.value(&setting::PARTITIONS);
            (value.to_owned(), origin)
        };
        assert_eq!(in_force(&layers), ("4".to_owned(), Origin::Default));
        layers.file = settings_of("partitions = 5").unwrap().file;
        assert_eq!(in_force(&layers), ("5".to_owned(), Origin::File));
        layers.environment = environment(|name| (name == "PARTITIONS").then(|| "6".to_owned()));
        assert_eq!(in_force(&layers), ("6".to_owned(), Origin::Environment));
        layers.flags.insert("partitions", "7".to_owned());
        assert_eq!(in_force(&layers), ("7".to_owned(), Origin::Flag));
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        assert!(environment(|_| Some(String::new())).is_empty());
    }

    #[test]
    fn a_file_says_lists_and_tables_in_its_own_way() {
        let layers = settings_of(
            "services = [\"tickets\", \"orders\"]\ndev_auth = true\n[kafka_properties]\n\"sasl.mechanism\" = \"PLAIN\"\nretries = 3",
        )
        .unwrap();
        let values = layers.file;
        assert_eq!(values["services"], "tickets,orders");
        assert_eq!(values["dev-auth"], "true");
        assert_eq!(values["kafka-properties"], "retries=3,sasl.mechanism=PLAIN");
    }

    #[test]
    fn a_value_of_a_table_may_have_commas() {
        let layers = settings_of(
            "[kafka_properties]\n\"sasl.oauthbearer.extensions\" = \"a=1,b=2\"\n\"sasl.password\" = 'p,\\,='\ndebug = [\"broker\", \"topic\"]",
        )
        .unwrap();
        assert_eq!(
            layers.file["kafka-properties"],
            r"debug=broker\,topic,sasl.oauthbearer.extensions=a=1\,b=2,sasl.password=p\,\\\,="
        );
        let properties = Config::read(&layers).unwrap().kafka_properties;
        assert_eq!(properties["sasl.oauthbearer.extensions"], "a=1,b=2");
        assert_eq!(properties["sasl.password"], r"p,\,=");
        assert_eq!(properties["debug"], "broker,topic");
        assert_eq!(properties.len(), 3);
    }

    #[test]
    fn a_value_of_a_table_keeps_its_blanks_and_one_of_a_text_does_not() {
        let password = |layers: &Layers| {
            let properties = Config::read(layers).unwrap().kafka_properties;
            properties["sasl.password"].clone()
        };
        let table = "[kafka_properties]\n\"sasl.password\" = \" a, b\\t \"";
        let mut layers = settings_of(table).unwrap();
        assert_eq!(password(&layers), " a, b\t ");
        let text = "kafka_properties = \"sasl.password = a \"";
        assert_eq!(password(&settings_of(text).unwrap()), "a");
        // A flag takes precedence over the table.
        let flag = "sasl.password = a ".to_owned();
        layers.flags.insert("kafka-properties", flag);
        assert_eq!(password(&layers), "a");
    }

    #[test]
    fn a_file_with_an_unknown_key_is_refused() {
        let why = settings_of("partitons = 5").unwrap_err();
        assert_eq!(why, "there is no setting partitons");
        assert!(settings_of("partitions = ").is_err());
        assert!(settings_of("partitions = 1.5").is_err());
    }

    #[test]
    fn a_complaint_names_the_line_and_does_not_show_it() {
        for line in [
            "jwt_key = 0123456789abcdef",
            "jwt_key = \"0123456789abcdef",
            "jwt_key = \"0123456789abcdef\" partitions = 5",
            "jwt_key \"0123456789abcdef\"",
            "jwt_key = \"\\q0123456789abcdef\"",
        ] {
            let why = settings_of(&format!("partitions = 4\n{line}\n")).unwrap_err();
            assert!(why.starts_with("line 2: "), "{why}");
            assert!(!why.contains("0123456789abcdef"), "{why}");
        }
        let twice = "jwt_key = \"0123456789abcdef\"\njwt_key = \"0123456789abcdef\"";
        let why = settings_of(twice).unwrap_err();
        assert!(!why.contains("0123456789abcdef"), "{why}");
    }
}
