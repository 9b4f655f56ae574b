//! A description as a graph in DOT: a box for each topic and, in a frame for each
//! subtopology, an ellipse for each processor and a cylinder for each store.
//!
//! Changelogs, dead letters and derived stores are left to the other forms: they follow from the
//! stores and would obscure the paths of the records.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter, Write};

use super::{
    ProcessorDescription, Rekeyed, SourceDescription, SubtopologyDescription, TopologyDescription,
};

impl TopologyDescription {
    pub(super) fn dot(&self) -> String {
        let mut out = String::new();
        self.write_dot(&mut out)
            .expect("writing to a String does not fail");
        out
    }

    fn write_dot(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "digraph topology {{")?;
        writeln!(out, "  rankdir=LR; ranksep=0.6; nodesep=0.35;")?;
        writeln!(
            out,
            "  node [fontname=\"Helvetica\", fontsize=12, style=filled, fillcolor=white];"
        )?;
        writeln!(out, "  edge [fontname=\"Helvetica\", fontsize=10];")?;
        for topic in self
            .topics
            .iter()
            .filter(|topic| matches!(topic.kind, "external" | "repartition"))
        {
            let unit = if topic.partitions == 1 {
                "partition"
            } else {
                "partitions"
            };
            let label = Quoted(&[&topic.name, &format!("{} {unit}", topic.partitions)]);
            let color = if topic.kind == "external" {
                "lightblue"
            } else {
                "lightgrey"
            };
            writeln!(
                out,
                "  {} [shape=box, fillcolor={color}, label={label}];",
                Id("topic", &topic.name)
            )?;
        }
        for subtopology in &self.subtopologies {
            subtopology.write_dot(out)?;
        }
        for subtopology in &self.subtopologies {
            subtopology.write_edges(out)?;
        }
        writeln!(out, "}}")
    }
}

impl SubtopologyDescription {
    fn write_dot(&self, out: &mut String) -> fmt::Result {
        let unit = if self.tasks.len() == 1 {
            "task"
        } else {
            "tasks"
        };
        let label = format!("Subtopology {}, {} {unit}", self.id, self.tasks.len());
        writeln!(out, "  subgraph cluster_{} {{", self.id)?;
        writeln!(
            out,
            "    label={}; fontname=\"Helvetica\"; style=rounded; color=grey;",
            Quoted(&[&label])
        )?;
        for source in self.sources.iter().filter(|source| source.is_rekeyed()) {
            writeln!(
                out,
                "    {} [shape=ellipse, style=dashed, label=\"re-key\"];",
                Id("re-key", &source.topic)
            )?;
        }
        for processor in &self.processors {
            let mut lines = vec![processor.name.clone()];
            lines.extend(processor.punctuators.iter().map(ToString::to_string));
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            writeln!(
                out,
                "    {} [shape=ellipse, label={}];",
                Id("processor", &processor.name),
                Quoted(&lines)
            )?;
        }
        for store in self.stores.iter().filter(|store| store.changelog.is_some()) {
            let (id, label) = (Id("store", &store.name), Quoted(&[&store.name]));
            writeln!(
                out,
                "    {id} [shape=cylinder, fillcolor=lightyellow, label={label}];"
            )?;
        }
        writeln!(out, "  }}")
    }

    fn write_edges(&self, out: &mut String) -> fmt::Result {
        for source in &self.sources {
            source.write_edges(out)?;
        }
        for processor in &self.processors {
            processor.write_edges(out)?;
        }
        Ok(())
    }
}

impl SourceDescription {
    /// Whether no processor sees its records before they are re-keyed.
    fn is_rekeyed(&self) -> bool {
        self.rekeys
            .as_ref()
            .is_some_and(|rekeys| rekeys.records == Rekeyed::All)
    }

    fn write_edges(&self, out: &mut String) -> fmt::Result {
        let (topic, group) = (Id("topic", &self.topic), Quoted(&[&self.group]));
        for processor in &self.to {
            writeln!(
                out,
                "  {topic} -> {} [label={group}];",
                Id("processor", processor)
            )?;
        }
        let Some(rekeys) = &self.rekeys else {
            return Ok(());
        };
        let through = Id("topic", &rekeys.through);
        match rekeys.records {
            Rekeyed::Misplaced => writeln!(
                out,
                "  {topic} -> {through} [style=dashed, label=\"misplaced\"];"
            ),
            Rekeyed::All => {
                let rekey = Id("re-key", &self.topic);
                writeln!(out, "  {topic} -> {rekey} [label={group}];")?;
                writeln!(out, "  {rekey} -> {through};")
            }
        }
    }
}

impl ProcessorDescription {
    fn write_edges(&self, out: &mut String) -> fmt::Result {
        let processor = Id("processor", &self.name);
        for forward in &self.forwards {
            for to in &forward.to {
                let label = Quoted(&[&forward.outlet]);
                writeln!(
                    out,
                    "  {processor} -> {} [label={label}];",
                    Id("processor", to)
                )?;
            }
        }
        // A processor may have several sinks to one topic: that is one arrow.
        for topic in self.sends.iter().collect::<BTreeSet<_>>() {
            writeln!(out, "  {processor} -> {};", Id("topic", topic))?;
        }
        for store in self.stores.iter().chain(&self.timers) {
            writeln!(
                out,
                "  {processor} -> {} [dir=none, style=dotted];",
                Id("store", store)
            )?;
        }
        Ok(())
    }
}

/// The id of a node: its kind and name, since a topic and a store may share a name.
struct Id<'a>(&'static str, &'a str);

impl Display for Id<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Quoted(&[&format!("{} {}", self.0, self.1)]).fmt(f)
    }
}

/// Lines as a quoted string of DOT.
struct Quoted<'a>(&'a [&'a str]);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let lines = self
            .0
            .iter()
            .map(|line| line.replace('\\', "\\\\").replace('"', "\\\""));
        write!(f, "\"{}\"", lines.collect::<Vec<_>>().join("\\n"))
    }
}
