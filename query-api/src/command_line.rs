//! The command line: what to do, and the flags of the settings.
//!
//! The flags are generated from the table of settings, for the subcommands that use them;
//! the other subcommands have their own flags. What is not set on the command line is looked
//! up in the environment and in the file, by [`crate::config`].

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::setting::{DEV_AUTH, SETTINGS, Setting};
use crate::config::{Config, ConfigError, Layers, layers};
use crate::demo::DemoArgs;
use crate::token::TokenArgs;

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
    /// Print a bearer token.
    Token(TokenArgs),
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
        let mut command = command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        let (name, after) = matches.subcommand().unwrap_or((RUN, &matches));
        let task = match name {
            "config" => Task::PrintConfig,
            "topology" => Task::PrintTopology,
            "openapi" => Task::PrintOpenApi,
            "token" => Task::Token(TokenArgs::from_arg_matches(after)?),
            "demo" => Task::Demo(DemoArgs::from_arg_matches(after)?),
            _ => Task::Run,
        };
        // Flags after the subcommand take precedence over flags before it.
        let places: Vec<&ArgMatches> = if goes_by_settings(name) {
            vec![after, &matches]
        } else if let Some(flag) = first_flag(&matches) {
            let why = format!("{name} does not take --{flag}, which is for instances");
            return Err(command.error(ErrorKind::ArgumentConflict, why));
        } else {
            Vec::new()
        };
        let said = |setting: &&'static Setting| {
            let mut values = places.iter().map(|place| place.get_one(setting.name));
            let value: &String = values.find_map(|value| value)?;
            Some((setting.name, value.clone()))
        };
        let flags = SETTINGS.iter().filter_map(said).collect();
        let mut files = places.iter().map(|place| place.get_one::<PathBuf>(FILE));
        Ok(Self {
            task,
            flags: Layers {
                flags,
                ..Layers::default()
            },
            file: files.find_map(|file| file).cloned(),
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
            flags: self.flags.flags,
            environment,
            ..file.unwrap_or_default()
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

/// The subcommand where none is named.
const RUN: &str = "run";

/// The id of the flag that names the configuration file.
const FILE: &str = "config-file";

fn goes_by_settings(subcommand: &str) -> bool {
    matches!(subcommand, RUN | "config" | "topology")
}

/// The first flag of an instance that was said in front of the subcommand.
fn first_flag(matches: &ArgMatches) -> Option<&'static str> {
    let mut flags = SETTINGS.iter().map(|setting| setting.name);
    let setting = flags.find(|name| matches.contains_id(name));
    setting.or_else(|| matches.contains_id(FILE).then_some("config"))
}

fn command() -> Command {
    let subcommands = [
        Command::new(RUN).about("Runs an instance; the default"),
        Command::new("config").about("Prints the configuration that is in force"),
        Command::new("topology").about("Prints the topology"),
        Command::new("openapi").about("Prints the OpenAPI document"),
        TokenArgs::augment_args(Command::new("token"))
            .about("Prints a bearer token, for callers of instances with the same JWT_KEY"),
        DemoArgs::augment_args(Command::new("demo")).about(
            "Lets buyers race for tickets on a running instance, and proves that none was sold twice",
        ),
    ];
    let subcommands = subcommands.map(|subcommand| {
        if goes_by_settings(subcommand.get_name()) {
            with_settings(subcommand)
        } else {
            subcommand
        }
    });
    with_settings(Command::new("ticketing"))
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs the ticketing system: its services on Kafka, and the HTTP API")
        .subcommands(subcommands)
}

/// Adds the flags of the settings.
fn with_settings(command: Command) -> Command {
    let file = Arg::new(FILE)
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("A TOML file of settings; flags and environment go before it");
    command
        .arg(file)
        .args(SETTINGS.iter().map(|setting| flag(setting)))
}

fn flag(setting: &'static Setting) -> Arg {
    let default = match setting.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let help = format!("{} [env: {}]{default}", setting.help, setting.variable);
    let flag = Arg::new(setting.name)
        .long(setting.name)
        .help(help)
        .action(ArgAction::Set);
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

    #[test]
    fn what_is_no_instance_takes_no_settings() {
        for arguments in [
            ["demo", "--partitions=7"],
            ["--partitions=7", "demo"],
            ["--config=f.toml", "openapi"],
            ["--jwt-key=0123456789abcdef", "openapi"],
        ] {
            let arguments = std::iter::once("ticketing").chain(arguments);
            let error = CommandLine::parse(arguments.map(str::to_owned)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn the_later_of_two_flags_holds() {
        let layers = parse(&["--partitions", "7", "config", "--partitions", "8"])
            .layers(|_| None)
            .unwrap();
        assert_eq!(layers.value(&PARTITIONS), ("8", Origin::Flag));
    }

    #[test]
    fn a_token_needs_a_caller_and_a_key() {
        let arguments = ["token", "--id=ada", "--expires=1h", "--jwt-key=0123456789"];
        let Task::Token(token) = parse(&arguments).task else {
            panic!("it is a token");
        };
        assert_eq!(
            (token.id.as_str(), token.jwt_key.as_str()),
            ("ada", "0123456789")
        );
        assert_eq!(token.expires, Some(std::time::Duration::from_secs(3600)));
        for arguments in [["token", "--jwt-key=0123456789"], ["token", "--jwt-key="]] {
            let arguments = std::iter::once("ticketing").chain(arguments);
            assert!(CommandLine::parse(arguments.map(str::to_owned)).is_err());
        }
    }
}
