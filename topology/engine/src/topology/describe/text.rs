//! A description as text, in the manner of Kafka Streams' `TopologyDescription`.

use std::fmt::{self, Display, Formatter};

use super::{
    InputDescription, ProcessorDescription, Rekeyed, SourceDescription, StoreDescription,
    SubtopologyDescription, TopologyDescription,
};

impl TopologyDescription {
    pub(super) fn text(&self) -> String {
        self.to_string()
    }
}

impl Display for TopologyDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.application_id {
            Some(application_id) => writeln!(f, "Topology of {application_id}")?,
            None => writeln!(f, "Topology")?,
        }
        for subtopology in &self.subtopologies {
            write!(f, "\n{subtopology}")?;
        }
        if !self.topics.is_empty() {
            writeln!(f, "\nTopics")?;
        }
        for topic in &self.topics {
            let unit = if topic.partitions == 1 {
                "partition"
            } else {
                "partitions"
            };
            writeln!(
                f,
                "  {} ({}, {} {unit})",
                topic.name, topic.kind, topic.partitions
            )?;
        }
        Ok(())
    }
}

impl Display for SubtopologyDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Subtopology {}", self.id)?;
        match self.tasks.as_slice() {
            [] => writeln!(f)?,
            [only] => writeln!(f, " (task {only})")?,
            [first, .., last] => writeln!(f, " ({} tasks, {first} to {last})", self.tasks.len())?,
        }
        let others: Vec<String> = self.commits_with.iter().map(ToString::to_string).collect();
        if !others.is_empty() {
            writeln!(f, "  Commits with subtopology {}", others.join(", "))?;
        }
        for source in &self.sources {
            write!(f, "{source}")?;
        }
        for processor in &self.processors {
            write!(f, "{processor}")?;
        }
        for store in &self.stores {
            write!(f, "{store}")?;
        }
        Ok(())
    }
}

impl Display for SourceDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  Source {} (group {}, on error: {})",
            self.topic, self.group, self.on_error
        )?;
        if !self.to.is_empty() {
            writeln!(f, "    --> {}", self.to.join(", "))?;
        }
        if let Some(rekeys) = &self.rekeys {
            let records = match rekeys.records {
                Rekeyed::Misplaced => "misplaced records",
                Rekeyed::All => "all records",
            };
            writeln!(
                f,
                "    --> topic {} ({records}, by their id)",
                rekeys.through
            )?;
        }
        Ok(())
    }
}

impl Display for ProcessorDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut traits = Vec::new();
        if !self.stores.is_empty() {
            traits.push(format!("stores: {}", self.stores.join(", ")));
        }
        if let Some(timers) = &self.timers {
            traits.push(format!("timers: {timers}"));
        }
        traits.extend(
            self.punctuators
                .iter()
                .map(|punctuator| format!("punctuator: {punctuator}")),
        );
        write!(f, "  Processor {}", self.name)?;
        if !traits.is_empty() {
            write!(f, " ({})", traits.join("; "))?;
        }
        let from: Vec<String> = self
            .from
            .iter()
            .map(|input| match input {
                InputDescription::Topic(topic) => format!("topic {topic}"),
                InputDescription::Processor(processor) => processor.clone(),
            })
            .collect();
        writeln!(f, "\n    <-- {}", from.join(", "))?;
        for forward in &self.forwards {
            writeln!(f, "    --> {} ({})", forward.to.join(", "), forward.outlet)?;
        }
        for topic in &self.sends {
            writeln!(f, "    --> topic {topic}")?;
        }
        Ok(())
    }
}

impl Display for super::PunctuatorDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let every = std::time::Duration::from_millis(self.every_ms);
        write!(f, "every {every:?} of {} time", self.clock)
    }
}

impl Display for StoreDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.changelog {
            Some(changelog) => writeln!(f, "  Store {} (changelog {changelog})", self.name),
            None => writeln!(f, "  Store {} (derived)", self.name),
        }
    }
}
