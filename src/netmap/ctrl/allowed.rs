//! What a client may ask for: what can be told from the request and the owner
//! of the port that it names. Sharing memory is judged where ports are found.

use nix::errno::Errno;

use super::message::Message;
use super::{Control, refused};
use crate::netmap::abi::nmreq::*;
use crate::netmap::authority::Rights;
use crate::netmap::register::{RegisterError, switch_of};

impl Control {
    /// The client may ask for this.
    ///
    /// # Errors
    /// `EACCES`.
    pub(super) fn check_allowed(&self, message: &Message) -> Result<(), Errno> {
        let name = &message.name;
        let switch = switch_of(name);
        let own = || {
            let owner = self.core.check_owner(name, &self.authority);
            owner.map_err(|error| refused(&error))
        };
        match message.reqtype {
            // A monitor needs no port of its own.
            NETMAP_REQ_REGISTER if monitors(message) => Ok(()),
            NETMAP_REQ_REGISTER | NETMAP_REQ_PORT_INFO_GET | NETMAP_REQ_POOLS_INFO_GET => {
                match switch {
                    Some(_) => self.check(Rights::ATTACH, name, switch),
                    None => Ok(()),
                }
            }
            NETMAP_REQ_PORT_HDR_GET => self.check(Rights::ATTACH, name, switch),
            NETMAP_REQ_PORT_HDR_SET => {
                self.check(Rights::ATTACH, name, switch)?;
                own()
            }
            NETMAP_REQ_VALE_ATTACH | NETMAP_REQ_VALE_DETACH => {
                self.check(Rights::CREATE.with(Rights::BWRAP), name, switch)?;
                own()
            }
            NETMAP_REQ_VALE_POLLING_ENABLE | NETMAP_REQ_VALE_POLLING_DISABLE => {
                self.check(Rights::BWRAP, name, switch)
            }
            NETMAP_REQ_VALE_NEWIF | NETMAP_REQ_VALE_DELIF => {
                if !self.authority.may_somewhere(Rights::CREATE) {
                    return self.check(Rights::CREATE, name, None);
                }
                own()
            }
            _ => Ok(()),
        }
    }

    fn check(&self, right: Rights, name: &str, switch: Option<&str>) -> Result<(), Errno> {
        if self.authority.may(right, switch) {
            return Ok(());
        }
        Err(refused(&RegisterError::Forbidden {
            name: name.to_owned(),
            right,
        }))
    }
}

fn monitors(message: &Message) -> bool {
    let body: RegisterBody = message.body();
    body.nr_flags & (NR_MONITOR_TX | NR_MONITOR_RX | NR_ZCOPY_MON) != 0
}
