//! The commits of a driver, in two halves: of all tasks together, or of one component.

use std::collections::BTreeMap;

use super::TopologyTestDriver;
use crate::record::OutputRecord;
use crate::task::ChangelogRecords;
use crate::topology::{Component, Components};
use crate::{Offset, SubtopologyId, TaskId};

/// The contents of a commit that has begun.
pub(super) struct CommitUnderWay {
    components: Vec<Component>,
    outputs: Vec<OutputRecord>,
    /// By task, for all tasks of these components.
    changelogs: BTreeMap<TaskId, Option<ChangelogRecords>>,
    read: BTreeMap<(TaskId, usize), Offset>,
}

impl TopologyTestDriver {
    /// Commits what all tasks have done: finishes the commits that have begun, if there are any,
    /// and commits the rest in one transaction.
    pub fn commit(&mut self) {
        self.finish_commit();
        self.begin_commit();
        self.finish_commit();
    }

    /// Begins to commit what all tasks have done, in one transaction. None of it is visible before
    /// [`TopologyTestDriver::finish_commit`]; what tasks do until then belongs to the next
    /// transaction, and is lost with this one.
    ///
    /// # Panics
    ///
    /// When a commit has begun and is not finished.
    pub fn begin_commit(&mut self) {
        self.begin(self.components.all().collect());
    }

    /// Begins to commit, in a transaction of their own, what the tasks of a subtopology and of those
    /// that repartition topics connect it with have done. What others have done is not in it, as
    /// when timers have fired.
    ///
    /// # Panics
    ///
    /// When a commit of any of them has begun and is not finished, or when there is no such
    /// subtopology.
    pub fn begin_commit_of(&mut self, subtopology: SubtopologyId) {
        self.begin(vec![self.component(subtopology)]);
    }

    fn begin(&mut self, components: Vec<Component>) {
        let is_free = components.iter().all(|component| {
            let mut under_way = self.under_way.iter();
            !under_way.any(|commit| commit.components.contains(component))
        });
        assert!(is_free, "a commit is finished before the next one begins");
        let mut changelogs = BTreeMap::new();
        for (id, task) in &mut self.tasks {
            if components.contains(&component(&self.components, *id)) {
                task.seal();
                changelogs.insert(*id, task.changelog_records(self.now));
            }
        }
        let outputs = components
            .iter()
            .filter_map(|of| self.uncommitted.remove(of));
        let read = self
            .read
            .iter()
            .filter(|((id, _), _)| changelogs.contains_key(id));
        self.under_way.push(CommitUnderWay {
            outputs: outputs.flatten().collect(),
            read: read.map(|(from, next)| (*from, *next)).collect(),
            changelogs,
            components,
        });
    }

    /// Finishes the commits that have begun, if there are any.
    pub fn finish_commit(&mut self) {
        for commit in std::mem::take(&mut self.under_way) {
            self.finish(commit);
        }
    }

    /// Finishes the commit that has begun for a subtopology, if there is one.
    ///
    /// # Panics
    ///
    /// When there is no such subtopology.
    pub fn finish_commit_of(&mut self, subtopology: SubtopologyId) {
        let component = self.component(subtopology);
        let mut under_way = self.under_way.iter();
        let index = under_way.position(|commit| commit.components.contains(&component));
        if let Some(index) = index {
            let commit = self.under_way.remove(index);
            self.finish(commit);
        }
    }

    fn finish(&mut self, commit: CommitUnderWay) {
        self.logs.commit(commit.outputs.into_iter());
        for (id, records) in commit.changelogs {
            let mut reached = None;
            for record in records.iter().flat_map(ChangelogRecords::outputs) {
                let offset = self.logs.append(record);
                reached = Some(Offset(offset.0 + 1));
            }
            let task = self.tasks.get_mut(&id);
            let task = task.expect("every task of the plan is open");
            let batch = task.take_batch(reached);
            task.backend()
                .write(batch)
                .expect("a memory backend with these stores takes any write");
        }
        self.logs.end_transaction();
        self.committed.extend(commit.read);
    }

    fn component(&self, subtopology: SubtopologyId) -> Component {
        let component = self.components.component(subtopology);
        component.unwrap_or_else(|| panic!("there is no subtopology {subtopology}"))
    }
}

/// The component of a task.
pub(super) fn component(components: &Components, id: TaskId) -> Component {
    let component = components.component(id.subtopology);
    component.expect("tasks are of subtopologies of the plan")
}
