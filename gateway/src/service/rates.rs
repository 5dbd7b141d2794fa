//! How often partners call: each as often as its grant says at that moment, over all its connections to this gateway. A
//! call is counted once, when it is opened. What goes through a stream is not, nor that a subscriber acknowledges it: it
//! answers what this node sends.
//!
//! It must never slow down anybody else, and whoever has no rate costs it nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::{Extensions, Status};

use super::{caller, status};
use crate::audit::Event;
use crate::engine::Engine;
use crate::pace::Paces;

/// Partners that are remembered; beyond them nobody more is slowed.
const PARTNERS_MAX: usize = 10_000;

/// The path of the method by which subscribers acknowledge.
const ACKNOWLEDGING: &str = "/guantong.v1.SubscriptionService/AcknowledgeChanges";

/// Counts the calls of partners. Clones count together.
#[derive(Clone)]
pub struct Rates {
    engine: Engine,
    paces: Arc<Mutex<Paces<String>>>,
}

impl Rates {
    /// For all ways into a node: one for each process.
    pub fn new(engine: Engine) -> Rates {
        Rates { engine, paces: Arc::new(Mutex::new(Paces::new(PARTNERS_MAX))) }
    }

    /// Counts a call of the method with this path by whoever is named in its extensions.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, with the time after which it may be tried again.
    pub fn admit(&self, path: &str, extensions: &Extensions) -> Result<(), Status> {
        let partner = caller::partner(extensions).filter(|_| path != ACKNOWLEDGING);
        let Some(partner) = partner else { return Ok(()) };
        let shared = self.engine.shared();
        // Without a grant it may call nothing, and is told so by the service.
        let Some(rate) = shared.grant(partner).and_then(|grant| grant.rate) else { return Ok(()) };
        let now_ms = (shared.environment.now_ms)();
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        paces.take(partner.to_owned(), rate.pace(), now_ms).map_err(|wait_ms| {
            shared.audit(Event::RateExceeded { partner: partner.to_owned() });
            status::too_often(rate, Duration::from_millis(wait_ms))
        })
    }
}
