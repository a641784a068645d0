//! Which process has a flow open now, where it is not the one that opened the flow.
//!
//! A descriptor may be passed on over a UNIX socket or inherited over fork and exec. /proc says who has it, in some of the passes.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::flows::{FlowId, Flows};
use crate::event::ProcessFacts;

/// Flows whose holder is remembered, about 20 bytes each: 1.3 MiB at the most. More than a whole range of ports has been passed on then,
/// and the counts of the holders are lower bounds.
const MAX_HELD: usize = 65_536;

/// Holders of flows that another process opened.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    by_flow: FxHashMap<FlowId, Arc<ProcessFacts>>,
}

impl Holders {
    /// Notes who has the flow open. `None`: its opener.
    pub fn set(&mut self, at: FlowId, holder: Option<Arc<ProcessFacts>>) {
        match holder {
            Some(holder) if self.by_flow.len() < MAX_HELD || self.by_flow.contains_key(&at) => {
                self.by_flow.insert(at, holder);
            }
            Some(_) => {}
            None => {
                self.by_flow.remove(&at);
            }
        }
    }

    /// Flows, and the process other than their opener that had them open when /proc was last read.
    pub fn iter(&self) -> impl Iterator<Item = (FlowId, &ProcessFacts)> {
        self.by_flow.iter().map(|(&at, facts)| (at, &**facts))
    }

    /// Forgets flows that are over.
    pub fn forget_closed(&mut self, flows: &Flows) {
        self.by_flow.retain(|&at, _| flows.get(at).is_some());
    }
}
