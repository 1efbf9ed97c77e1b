//! The messages about the device as a whole.

use super::{FrontEnd, FrontEndError, nonsense};
use crate::frontend::vhost_user::Request;
use crate::frontend::vhost_user::message::{
    ConfigAccess, MAX_CONFIG, protocol_feature, u64_from_bytes,
};

impl FrontEnd {
    /// Reads `len` bytes of the configuration space.
    ///
    /// # Errors
    /// [`FrontEndError::Refused`] when the back end has no such bytes.
    pub fn config(&mut self, offset: u32, len: usize) -> Result<Vec<u8>, FrontEndError> {
        let request = Request::GetConfig;
        self.needs(protocol_feature::CONFIG, request)?;
        let payload = config_payload(offset, ConfigAccess::WRITABLE, &vec![0; len])?;
        let answer = self.query(request, &payload)?;
        if answer.payload.is_empty() {
            return Err(FrontEndError::Refused(request, 0));
        }
        match ConfigAccess::from_bytes(&answer.payload) {
            Some((access, bytes)) if access.offset == offset && bytes.len() == len => {
                Ok(bytes.to_owned())
            }
            Some((access, _)) if access.size == 0 => Err(FrontEndError::Refused(request, 0)),
            _ => Err(nonsense(request, &answer)),
        }
    }

    /// Writes to the configuration space as a driver does.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FrontEndError> {
        self.needs(protocol_feature::CONFIG, Request::SetConfig)?;
        let payload = config_payload(offset, ConfigAccess::WRITABLE, bytes)?;
        self.command(Request::SetConfig, &payload, &[])
    }

    /// Tells the MTU that the guest was told.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), FrontEndError> {
        self.needs(protocol_feature::MTU, Request::NetSetMtu)?;
        self.command_u64(Request::NetSetMtu, u64::from(mtu))
    }

    /// Asks the back end to announce the guest's address.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn send_rarp(&mut self, mac: [u8; 6]) -> Result<(), FrontEndError> {
        self.needs(protocol_feature::RARP, Request::SendRarp)?;
        let mut payload = [0; 8];
        payload[..6].copy_from_slice(&mac);
        self.command(Request::SendRarp, &payload, &[])
    }

    /// Reads the device status.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn status(&mut self) -> Result<u8, FrontEndError> {
        self.needs(protocol_feature::STATUS, Request::GetStatus)?;
        let answer = self.query(Request::GetStatus, &[])?;
        u64_from_bytes(&answer.payload)
            .and_then(|status| u8::try_from(status).ok())
            .ok_or_else(|| nonsense(Request::GetStatus, &answer))
    }

    /// Writes the device status; 0 resets the device.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn set_status(&mut self, status: u8) -> Result<(), FrontEndError> {
        self.needs(protocol_feature::STATUS, Request::SetStatus)?;
        self.command_u64(Request::SetStatus, u64::from(status))
    }

    /// Resets the device: by `RESET_DEVICE`, or, where that was not
    /// negotiated, by `RESET_OWNER` as front ends of old.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn reset(&mut self) -> Result<(), FrontEndError> {
        let request = if self.protocol & protocol_feature::RESET_DEVICE != 0 {
            Request::ResetDevice
        } else {
            Request::ResetOwner
        };
        self.command(request, &[], &[])
    }
}

fn config_payload(offset: u32, flags: u32, bytes: &[u8]) -> Result<Vec<u8>, FrontEndError> {
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if bytes.len() > MAX_CONFIG {
        return Err(FrontEndError::DoesNotFit(
            "an access to the configuration space",
        ));
    }
    let access = ConfigAccess {
        offset,
        size,
        flags,
    };
    Ok([&access.to_bytes()[..], bytes].concat())
}
