// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The receive and transmit virtqueues (virtio 1.4, 5.1.6): a frame a request.

use std::collections::VecDeque;
use std::io::{Read, Write};

use super::Net;
use crate::types::{put, Malformed, Outcome, Request};

/// `struct virtio_net_hdr` with `num_buffers`.
const HEADER: usize = 12;
const NUM_BUFFERS: usize = 10;
/// No feature allows for longer ones.
const LONGEST_FRAME: usize = 1514;

impl Net {
    /// The peer sees what the driver sends, and answers.
    pub(super) fn transmit(
        &self,
        pair: usize,
        mut request: Request<'_>,
    ) -> Result<Outcome, Malformed> {
        let mut header = [0; HEADER];
        request
            .input
            .read_exact(&mut header)
            .map_err(|_| Malformed("no header"))?;
        let length = request.input.available_bytes();
        let fits = length <= LONGEST_FRAME;
        let mut frame = vec![0; if fits { length } else { 0 }];
        request
            .input
            .read_exact(&mut frame)
            .map_err(|_| Malformed("no frame"))?;
        let mut state = self.lock();
        state.too_long += u64::from(!fits);
        let ok = fits && state.link && !request.fail;
        if ok {
            if let Some(traffic) = state.traffic.get_mut(pair) {
                traffic.transmitted += 1;
            }
            let now = state.now;
            let answers = state.peer.answer(&frame, now);
            state.arrive(pair, answers);
        }
        Ok(Outcome {
            kind: "transmit",
            ok,
            written: 0,
        })
    }

    /// The driver gets what the peer has sent.
    pub(super) fn receive(
        &self,
        pair: usize,
        mut request: Request<'_>,
    ) -> Result<Outcome, Malformed> {
        let frame = {
            let mut state = self.lock();
            let waiting = state.waiting.get_mut(pair);
            waiting.and_then(VecDeque::pop_front).unwrap_or_default()
        };
        if request.output.available_bytes() < HEADER + frame.len() {
            return Err(Malformed("a receive buffer is too short"));
        }
        let mut header = [0; HEADER];
        put(&mut header, NUM_BUFFERS, &1u16.to_le_bytes());
        let ok = !request.fail
            && request
                .output
                .write_all(&header)
                .and_then(|()| request.output.write_all(&frame))
                .is_ok();
        Ok(Outcome {
            kind: "receive",
            ok,
            written: u32::try_from(request.output.bytes_written()).unwrap_or(u32::MAX),
        })
    }
}
