// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! VFIO_USER_VERSION: what client and server agree on before anything else.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::message::{MAX_DATA, MAX_FILES};
use crate::memory::{MAX_MAPS, PAGE_SIZE};

/// The protocol has no other major version, and this server needs nothing of a later minor one.
const MAJOR: u16 = 0;
const MINOR: u16 = 0;

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The most data of a region access.
    pub max_data_xfer_size: u64,
    /// The most maps at a time.
    pub max_dma_maps: u64,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Data {
    capabilities: Capabilities,
}

/// Of the capabilities that there are, those that a server without commands of its own has a use for.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Capabilities {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_msg_fds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_data_xfer_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_dma_maps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pgsizes: Option<u64>,
}

/// What is agreed on with a client that proposes this version and these capabilities, and the reply's payload. It has no capability
/// that the client has not proposed.
pub(super) fn negotiate(major: u16, capabilities: &[u8]) -> Result<(Limits, Vec<u8>), Errno> {
    if major != MAJOR {
        return Err(Errno::PROTONOSUPPORT);
    }
    let client = parse(capabilities)?;
    if client.pgsizes.is_some_and(|sizes| sizes & PAGE_SIZE == 0) {
        return Err(Errno::INVAL);
    }
    let (data, maps) = (u64::from(MAX_DATA), MAX_MAPS as u64);
    let limits = Limits {
        max_data_xfer_size: client.max_data_xfer_size.unwrap_or(data).min(data),
        max_dma_maps: client.max_dma_maps.unwrap_or(maps).min(maps),
    };
    let reply = Data {
        capabilities: Capabilities {
            // How many the sender can receive.
            max_msg_fds: client.max_msg_fds.map(|_| MAX_FILES as u64),
            max_data_xfer_size: client.max_data_xfer_size.map(|_| limits.max_data_xfer_size),
            max_dma_maps: client.max_dma_maps.map(|_| limits.max_dma_maps),
            pgsizes: client.pgsizes.map(|_| PAGE_SIZE),
        },
    };
    let text = serde_json::to_vec(&reply).map_err(|_| Errno::NOMEM)?;
    let version = [MAJOR, MINOR].map(u16::to_ne_bytes).concat();
    Ok((limits, [version, text, vec![0]].concat()))
}

/// The text, which ends with a NUL, if there is any.
fn parse(capabilities: &[u8]) -> Result<Capabilities, Errno> {
    if capabilities.is_empty() {
        return Ok(Capabilities::default());
    }
    let text = capabilities.strip_suffix(&[0]).ok_or(Errno::INVAL)?;
    let data: Data = serde_json::from_slice(text).map_err(|_| Errno::INVAL)?;
    Ok(data.capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(text: &str) -> Result<(Limits, String), Errno> {
        let (limits, reply) = negotiate(0, format!("{text}\0").as_bytes())?;
        let text = reply[4..].strip_suffix(&[0]).unwrap().to_vec();
        assert_eq!(reply[..4], [0; 4], "0.0");
        Ok((limits, String::from_utf8(text).unwrap()))
    }

    #[test]
    fn the_smaller_limit_counts() {
        // What QEMU proposes.
        let qemu = r#"{"capabilities": {"max_msg_fds": 16, "max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "write_multiple": true}}"#;
        let (limits, reply) = proposed(qemu).unwrap();
        assert!(
            reply.len() <= qemu.len(),
            "QEMU has room for no more than it has sent"
        );
        assert_eq!(
            (limits.max_data_xfer_size, limits.max_dma_maps),
            (4096, 128)
        );
        assert_eq!(
            reply,
            r#"{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":4096,"max_dma_maps":128,"pgsizes":4096}}"#
        );
        let (limits, reply) =
            proposed(r#"{"capabilities":{"max_data_xfer_size":8,"max_dma_maps":3}}"#).unwrap();
        assert_eq!((limits.max_data_xfer_size, limits.max_dma_maps), (8, 3));
        assert_eq!(
            reply,
            r#"{"capabilities":{"max_data_xfer_size":8,"max_dma_maps":3}}"#
        );
    }

    #[test]
    fn nothing_is_offered_that_was_not_proposed() {
        let (limits, reply) = proposed("{}").unwrap();
        assert_eq!(limits, negotiate(0, &[]).unwrap().0);
        assert_eq!(
            (limits.max_data_xfer_size, limits.max_dma_maps),
            (4096, 128)
        );
        assert_eq!(reply, r#"{"capabilities":{}}"#);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(negotiate(1, &[]).unwrap_err(), Errno::PROTONOSUPPORT);
        assert_eq!(negotiate(0, b"{}").unwrap_err(), Errno::INVAL, "no NUL");
        for text in [
            "",
            "{",
            "[1]",
            r#"{"capabilities":{"max_msg_fds":-1}}"#,
            r#"{"capabilities":{"pgsizes":"4096"}}"#,
            r#"{"capabilities":{"pgsizes":8192}}"#,
        ] {
            assert_eq!(proposed(text).unwrap_err(), Errno::INVAL, "{text}");
        }
    }
}
