//! The command line: what to do, and the flags of the settings.
//!
//! The flags are made from the table of settings; what is not said on the command
//! line is looked for in the environment and in the file, by [`crate::config`].

use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, Command, FromArgMatches};

use crate::config::setting::{DEV_AUTH, SETTINGS, Setting};
use crate::config::{Config, ConfigError, Layers, layers};
use crate::demo::DemoArgs;

/// What the binary is to do.
#[derive(Debug)]
pub enum Task {
    /// Run an instance until it is stopped.
    Run,
    /// Print the configuration that is in force.
    PrintConfig,
    /// Print the topology.
    PrintTopology,
    /// Print the OpenAPI document.
    PrintOpenApi,
    /// Let buyers race for tickets on a running instance.
    Demo(DemoArgs),
}

/// A command line that was understood.
#[derive(Debug)]
pub struct CommandLine {
    /// What to do.
    pub task: Task,
    flags: Layers,
    file: Option<PathBuf>,
}

impl CommandLine {
    /// Reads the arguments of the process.
    ///
    /// # Errors
    ///
    /// What clap has to say, which may be the help text.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, clap::Error> {
        let matches = command().try_get_matches_from(arguments)?;
        let task = match matches.subcommand() {
            Some(("config", _)) => Task::PrintConfig,
            Some(("topology", _)) => Task::PrintTopology,
            Some(("openapi", _)) => Task::PrintOpenApi,
            Some(("demo", demo)) => Task::Demo(DemoArgs::from_arg_matches(demo)?),
            _ => Task::Run,
        };
        let said = |setting: &&'static Setting| {
            Some((
                setting.name,
                matches.get_one::<String>(setting.name)?.clone(),
            ))
        };
        let flags = SETTINGS.iter().filter_map(said).collect();
        Ok(Self {
            task,
            flags: Layers {
                flags,
                ..Layers::default()
            },
            file: matches.get_one::<PathBuf>("config-file").cloned(),
        })
    }

    /// The layers of the configuration, `variable` being the environment.
    ///
    /// # Errors
    ///
    /// When the configuration file cannot be used.
    pub fn layers(self, variable: impl Fn(&str) -> Option<String>) -> Result<Layers, ConfigError> {
        let file = self.file.as_deref().map(layers::file).transpose()?;
        let environment = layers::environment(variable);
        Ok(Layers {
            environment,
            file: file.unwrap_or_default(),
            ..self.flags
        })
    }
}

/// The configuration that `command_line` and the environment say.
///
/// # Errors
///
/// When it cannot be used.
pub fn configuration(command_line: CommandLine) -> Result<(Layers, Config), ConfigError> {
    let layers = command_line.layers(|name| std::env::var(name).ok())?;
    let config = Config::read(&layers)?;
    Ok((layers, config))
}

fn command() -> Command {
    let file = Arg::new("config-file")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .global(true)
        .help("A TOML file of settings; flags and environment go before it");
    let command = Command::new("ticketing")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs the ticketing system: its services on Kafka, and the HTTP API")
        .arg(file)
        .args(SETTINGS.iter().map(|setting| flag(setting)))
        .subcommand(Command::new("run").about("Runs an instance; the default"))
        .subcommand(Command::new("config").about("Prints the configuration that is in force"))
        .subcommand(Command::new("topology").about("Prints the topology"))
        .subcommand(Command::new("openapi").about("Prints the OpenAPI document"));
    let demo = DemoArgs::augment_args(Command::new("demo")).about(
        "Lets buyers race for tickets on a running instance, and proves that none was sold twice",
    );
    command.subcommand(demo)
}

fn flag(setting: &'static Setting) -> Arg {
    let default = match setting.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let help = format!("{} [env: {}]{default}", setting.help, setting.variable);
    let mut flag = Arg::new(setting.name)
        .long(setting.name)
        .help(help)
        .action(ArgAction::Set);
    // Demo has a flag of the same name that means the same.
    if setting.name != "jwt-key" {
        flag = flag.global(true);
    }
    if *setting == DEV_AUTH {
        return flag
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true");
    }
    flag.value_name("VALUE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::setting::{Origin, PARTITIONS};

    fn parse(arguments: &[&str]) -> CommandLine {
        let arguments = std::iter::once("ticketing").chain(arguments.iter().copied());
        CommandLine::parse(arguments.map(str::to_owned)).expect("the arguments are right")
    }

    #[test]
    fn the_command_is_consistent() {
        command().debug_assert();
        assert!(matches!(parse(&[]).task, Task::Run));
    }

    #[test]
    fn every_setting_has_a_flag_before_and_after_the_subcommand() {
        for arguments in [
            ["--partitions", "7", "config"],
            ["config", "--partitions", "7"],
        ] {
            let layers = parse(&arguments).layers(|_| None).unwrap();
            assert_eq!(layers.value(&PARTITIONS), ("7", Origin::Flag));
        }
    }

    #[test]
    fn dev_auth_needs_no_value() {
        for (arguments, value) in [(["--dev-auth"], "true"), (["--dev-auth=false"], "false")] {
            let layers = parse(&arguments).layers(|_| None).unwrap();
            assert_eq!(layers.value(&DEV_AUTH).0, value);
        }
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "partitions = 1\norder_ttl = \"1s\"\nservices = \"orders\"",
        )
        .unwrap();
        let path = file.path().to_str().unwrap();
        let command_line = parse(&["--config", path, "--partitions", "3"]);
        let environment = |name: &str| match name {
            "PARTITIONS" => Some("2".to_owned()),
            "ORDER_TTL" => Some("2s".to_owned()),
            _ => None,
        };
        let config = Config::read(&command_line.layers(environment).unwrap()).unwrap();
        assert_eq!(config.partitions, 3);
        assert_eq!(config.order_ttl.as_secs(), 2);
        assert_eq!(config.services.len(), 1);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = parse(&["--config", "/nowhere/at/all.toml"])
            .layers(|_| None)
            .unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all.toml"));
    }

    #[test]
    fn the_demo_has_flags_of_its_own() {
        let Task::Demo(demo) = parse(&["demo", "--url", "http://h:1", "--tickets", "3"]).task
        else {
            panic!("it is the demo");
        };
        assert_eq!((demo.url.as_str(), demo.tickets), ("http://h:1", 3));
        assert!(CommandLine::parse(["ticketing".to_owned(), "--nonsense".to_owned()]).is_err());
    }
}
