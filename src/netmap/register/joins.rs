//! Persistent ports on a second switch.

use std::sync::Arc;

use super::{Netmap, RegisterError, Request, RingMode, State};
use crate::netmap::adapter::{Adapter, Place, ValePort};
use crate::netmap::authority::{Resource, Rights};
use crate::netmap::bwrap::Second;

/// Most switches that are joined: a frame goes through all of them in one
/// sender's turn, and on one stack.
pub(super) const MOST: usize = 16;

impl Netmap {
    /// Puts a port that is at `first` on `switch` as well, which joins the two;
    /// returns its number there.
    ///
    /// # Errors
    /// It is on two already, or the switches are joined, or the client may not.
    pub(super) fn join(
        &self,
        state: &State,
        request: &Request,
        vale: &ValePort,
        first: &Place,
        (switch, port): (&str, &str),
    ) -> Result<u8, RegisterError> {
        let name = &request.name;
        if let Some(second) = &*vale.second.load() {
            return Err(joins(name, second));
        }
        if request.ring != 0 || !matches!(request.mode, RingMode::All | RingMode::AllAndHost) {
            return Err(RegisterError::AttachMode(name.clone()));
        }
        // What is sent on one of them is seen on the other.
        let right = Rights::CREATE;
        if !request.authority.may(right, Some(first.switch.name())) {
            return Err(RegisterError::Forbidden {
                name: first.name.clone(),
                right,
            });
        }
        let here = joined(state, first.switch.name());
        if here.iter().any(|one| one == switch) {
            return Err(RegisterError::Loop {
                name: name.clone(),
                first: first.switch.name().to_owned(),
            });
        }
        if here.len() + joined(state, switch).len() > MOST {
            return Err(RegisterError::Chain(name.clone()));
        }
        let charge = request.authority.charge(Resource::Ports, 1)?;
        let switch = self.switches.get(switch);
        match Second::new(&vale.ring_port, first, (switch, port), charge) {
            Ok(second) => {
                let index = second.place.id.index();
                vale.second.store(Some(Arc::new(second)));
                Ok(index)
            }
            Err((switch, error)) => {
                self.switches.release(switch);
                Err(error.into())
            }
        }
    }

    /// Takes a port off its second switch, if `name` is its name there; returns
    /// the number that it had.
    ///
    /// # Errors
    /// It is its name on the first one: the second holds that.
    pub(super) fn part(&self, vale: &ValePort, name: &str) -> Result<Option<u8>, RegisterError> {
        match &*vale.second.load() {
            None => return Ok(None),
            Some(second) if second.place.name != name => return Err(joins(name, second)),
            Some(_) => {}
        }
        // Whoever else looks at it has the core's lock, too.
        let second = vale.second.swap(None).and_then(Arc::into_inner);
        Ok(second.map(|second| {
            let (switch, id) = second.undo(&vale.ring_port);
            self.switches.release(switch);
            id.index()
        }))
    }

    /// A client cannot have the rings of a port that joins two switches.
    ///
    /// # Errors
    /// It is such a port.
    pub(super) fn check_no_join(name: &str, adapter: &Adapter) -> Result<(), RegisterError> {
        let second = adapter.vale().map(|vale| vale.second.load());
        match second.as_deref() {
            Some(Some(second)) => Err(joins(name, second)),
            _ => Ok(()),
        }
    }
}

fn joins(name: &str, second: &Second) -> RegisterError {
    RegisterError::Joins {
        name: name.to_owned(),
        second: second.place.name.clone(),
    }
}

/// The switches that frames of `switch` come to, itself among them.
fn joined(state: &State, switch: &str) -> Vec<String> {
    let mut known = vec![switch.to_owned()];
    let mut at = 0;
    while let Some(one) = known.get(at).cloned() {
        at += 1;
        for adapter in state.attached.values() {
            let Some(ends) = ends(adapter) else { continue };
            if let Some(side) = ends.iter().position(|end| *end == one) {
                let [first, second] = ends;
                let other = if side == 0 { second } else { first };
                if !known.contains(&other) {
                    known.push(other);
                }
            }
        }
    }
    known
}

/// The two switches that a port joins.
fn ends(adapter: &Adapter) -> Option<[String; 2]> {
    let vale = adapter.vale()?;
    let (first, second) = (vale.place.load(), vale.second.load());
    let places = [&**first.as_ref()?, &second.as_ref()?.place];
    Some(places.map(|place| place.switch.name().to_owned()))
}
