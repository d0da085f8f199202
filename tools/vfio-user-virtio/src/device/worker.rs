// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The worker: it takes requests under the lock, carries them out without it, and gives them back under it.

use std::sync::PoisonError;
use std::time::Instant;

use super::chain::Chain;
use super::queues::{Done, Executed, Taken};
use super::Device;
use crate::buffers::{Guest, Reader, Work, Writer};
use crate::types::Request;

impl Device {
    /// Works on the virtqueues, for ever.
    pub fn run(&self) -> ! {
        loop {
            self.serve(Instant::now());
            let state = self.lock();
            if state.has_work(Instant::now()) {
                continue;
            }
            // Whoever leaves work for the worker holds the lock and notifies: nothing is missed between the look and the wait.
            match state.next_event() {
                Some(next) => {
                    let wait = next.saturating_duration_since(Instant::now());
                    drop(
                        self.wake
                            .wait_timeout(state, wait)
                            .unwrap_or_else(PoisonError::into_inner),
                    );
                }
                None => drop(
                    self.wake
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner),
                ),
            }
        }
    }

    /// Does what there is to do at `now`.
    pub fn serve(&self, now: Instant) {
        let (work, due) = {
            let mut state = self.lock();
            // A device that is frozen does not see time pass.
            self.of_type.pass(now);
            state.begin(now);
            state.take(&self.memory.lock(), now);
            state.due(now)
        };
        let execute = |taken| self.execute(&work, taken);
        let begun = Instant::now();
        let done: Vec<Executed> = due.into_iter().map(execute).collect();
        // What was missed was missed when that was tried, not before.
        let missed = now + begun.elapsed();
        let mut state = self.lock();
        state.give_back(&work, done, &self.memory, missed);
        state.answer(now);
        self.wake.notify_all();
    }

    fn execute(&self, work: &Work, taken: Taken) -> Executed {
        let guest = Guest {
            memory: &self.memory,
            work,
        };
        let Chain {
            head,
            descriptors,
            input,
            output,
        } = &taken.chain;
        if !taken.chain.is_in(&self.memory.lock()) {
            return Executed::Missed(taken);
        }
        work.begin(taken.queue);
        let outcome = guest.wanted().ok().map(|()| {
            self.of_type.execute(Request {
                queue: taken.queue,
                input: Reader::new(guest, input),
                output: Writer::new(guest, output),
                fail: taken.fail,
            })
        });
        // A reset in the middle of it is no fault of the request's.
        let outcome = outcome.filter(|_| guest.wanted().is_ok());
        // The type may have made an error of its own of it, which would be told as one of the request's.
        let outcome = outcome.filter(|_| !work.has_lost_memory());
        let outcome = outcome.and_then(|outcome| {
            outcome
                .inspect_err(|error| tracing::warn!(%error, head, "a request can't be answered"))
                .ok()
        });
        Executed::Done(Done {
            queue: taken.queue,
            head: *head,
            descriptors: *descriptors,
            outcome: outcome.map(Into::into),
        })
    }
}
