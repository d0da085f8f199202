// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sends numbered frames on a network interface and counts those that come back: whether all do, once, and in order. Whoever is at
//! the other end of the wire has to send them back, as the peer in vfio-user-virtio does.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    bind, recv, send, setsockopt, socket,
    sockopt::{RcvBufForce, ReceiveTimeout},
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
};
use nix::sys::time::{TimeVal, TimeValLike};

use numbers::Numbers;

mod numbers;

/// IEEE 802: for local experiments.
const ETHERTYPE: u16 = 0x88b5;
const HEADER: usize = 14;
const LENGTH: usize = 256;
/// How long to wait for a frame before looking at the time.
const TICK_MS: i64 = 100;
/// Of the socket, in bytes.
const RECEIVE_BUFFER: usize = 32 << 20;

/// Send numbered frames, and count those that come back
///
/// Ends with status 0 if all did, once and in order, and with 1 if not.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The network interface
    interface: String,
    /// How many frames
    count: u64,
    /// How many frames may be on their way at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1000))]
    window: u64,
    /// Give up when none has come back for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no network interface '{0}', or none with an Ethernet address")]
    Interface(String),
    #[error("can't {0}")]
    System(&'static str, #[source] Errno),
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(numbers) => {
            println!("{numbers}");
            if numbers.all_is_well() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprint!("frames: {error}");
            if let Some(source) = std::error::Error::source(&error) {
                eprint!(": {source}");
            }
            eprintln!();
            2.into()
        }
    }
}

fn run(args: &Args) -> Result<Numbers, Error> {
    let (socket, mac) = open(&args.interface)?;
    let mut numbers = Numbers::default();
    let mut last = Instant::now();
    while numbers.sent() < args.count || numbers.missing() > 0 {
        while numbers.sent() < args.count && numbers.missing() < args.window {
            match transmit(&socket, mac, numbers.sent()) {
                Ok(()) => numbers.send(),
                // There is no room. What comes back makes some.
                Err(Errno::EAGAIN | Errno::ENOBUFS) => break,
                Err(error) => return Err(Error::System("send", error)),
            }
        }
        match receive(&socket, mac) {
            Ok(Some(number)) => {
                numbers.receive(number);
                last = Instant::now();
            }
            Ok(None) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(Error::System("receive", error)),
        }
        if last.elapsed() > Duration::from_secs(args.patience) {
            break;
        }
    }
    Ok(numbers)
}

fn open(interface: &str) -> Result<(OwnedFd, [u8; 6]), Error> {
    let address: LinkAddr = getifaddrs()
        .map_err(|error| Error::System("list the network interfaces", error))?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or_else(|| Error::Interface(interface.to_owned()))?;
    let mac = address
        .addr()
        .ok_or_else(|| Error::Interface(interface.to_owned()))?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::EthAll,
    )
    .map_err(|error| Error::System("open a packet socket", error))?;
    bind(socket.as_raw_fd(), &address).map_err(|error| Error::System("bind", error))?;
    // It gets all that others send and receive, too.
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)
        .map_err(|error| Error::System("set the size of the receive buffer", error))?;
    // Until now the socket has got the frames of all interfaces, and may have no room left.
    while recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT).is_ok() {}
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(TICK_MS))
        .map_err(|error| Error::System("set a timeout", error))?;
    Ok((socket, mac))
}

fn transmit(socket: &OwnedFd, mac: [u8; 6], number: u64) -> Result<(), Errno> {
    let mut frame = Vec::with_capacity(LENGTH);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.resize(LENGTH, 0);
    send(socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT).map(drop)
}

/// The number of the next frame, if it is one that came back.
fn receive(socket: &OwnedFd, mac: [u8; 6]) -> Result<Option<u64>, Errno> {
    let mut frame = [0; LENGTH];
    let length = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty())?;
    Ok(number_in(frame.get(..length).unwrap_or_default(), mac))
}

fn number_in(frame: &[u8], mac: [u8; 6]) -> Option<u64> {
    let (header, rest) = frame.split_at_checked(HEADER)?;
    // The socket sees what it sends, too.
    let came_back = header.starts_with(&mac) && header.ends_with(&ETHERTYPE.to_be_bytes());
    came_back.then_some(u64::from_be_bytes(*rest.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_that_came_back_count() {
        let mac = [2, 0, 0, 0, 0, 9];
        let frame = |to: [u8; 6], ethertype: u16| {
            let mut frame = to.to_vec();
            frame.extend([7; 6]);
            frame.extend(ethertype.to_be_bytes());
            frame.extend(5u64.to_be_bytes());
            frame
        };
        assert_eq!(number_in(&frame(mac, ETHERTYPE), mac), Some(5));
        assert_eq!(number_in(&frame([0xff; 6], ETHERTYPE), mac), None);
        assert_eq!(number_in(&frame(mac, 0x0800), mac), None);
        assert_eq!(number_in(&frame(mac, ETHERTYPE)[..20], mac), None);
        assert_eq!(number_in(&[], mac), None);
    }
}
