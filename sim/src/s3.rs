//! The control bucket: four objects, two of them under compare-and-swap.

use std::sync::Arc;

use fleet::memory::Memory;
use fleet::release::Release;
use fleet::{DesiredCount, Registry};
use planner::effect::{MemoryObject, Written};

#[derive(Clone)]
pub enum StateObject {
    Memory(Arc<Memory>),
    Garbage,
}

pub struct S3 {
    state: Option<(StateObject, u64)>,
    registry: Option<(Arc<Registry>, u64)>,
    pub desired: Result<DesiredCount, String>,
    pub release: Arc<Release>,
    version: u64,
}

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

impl S3 {
    pub fn new(desired: DesiredCount, release: Arc<Release>) -> Self {
        Self { state: None, registry: None, desired: Ok(desired), release, version: 0 }
    }

    pub fn memory(&self) -> Option<&Arc<Memory>> {
        match &self.state {
            Some((StateObject::Memory(memory), _)) => Some(memory),
            Some((StateObject::Garbage, _)) | None => None,
        }
    }

    pub fn read_memory(&self) -> MemoryObject {
        match &self.state {
            None => MemoryObject::Missing,
            Some((StateObject::Memory(memory), version)) => {
                MemoryObject::Found { memory: memory.clone(), etag: etag(*version) }
            }
            Some((StateObject::Garbage, version)) => {
                MemoryObject::Unreadable { why: "not JSON".to_owned(), etag: etag(*version) }
            }
        }
    }

    pub fn write_memory(&mut self, memory: &Arc<Memory>, if_match: Option<&str>) -> Written {
        let current = self.state.as_ref().map(|(_, version)| etag(*version));
        if current.as_deref() != if_match {
            return Written::Conflict;
        }
        self.version += 1;
        self.state = Some((StateObject::Memory(memory.clone()), self.version));
        Written::Done { etag: etag(self.version) }
    }

    pub fn spoil_memory(&mut self, object: Option<StateObject>) {
        self.version += 1;
        self.state = object.map(|object| (object, self.version));
    }

    pub fn registry(&self) -> Option<&Arc<Registry>> {
        self.registry.as_ref().map(|(registry, _)| registry)
    }

    pub fn registry_etag(&self) -> Option<String> {
        self.registry.as_ref().map(|(_, version)| etag(*version))
    }

    pub fn delete_registry(&mut self) {
        self.registry = None;
    }

    pub fn publish(&mut self, registry: &Arc<Registry>, if_match: Option<&str>) -> Written {
        if self.registry_etag().as_deref() != if_match {
            return Written::Conflict;
        }
        self.version += 1;
        self.registry = Some((registry.clone(), self.version));
        Written::Done { etag: etag(self.version) }
    }
}
