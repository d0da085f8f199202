// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Threads that thaw a file system each: one whose disk does not answer keeps no other one frozen.

use std::io;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::thread;

use crate::memory::STACK;

/// Threads that wait until they have to thaw. They have all of their memory before.
#[derive(Debug)]
pub(crate) struct Thaws {
    orders: Vec<SyncSender<()>>,
    results: Receiver<(usize, io::Result<()>)>,
}

impl Thaws {
    /// A thread for each of them.
    pub(crate) fn ready<T>(all: impl ExactSizeIterator<Item = T>) -> io::Result<Self>
    where
        T: FnOnce() -> io::Result<()> + Send + 'static,
    {
        let mut orders = Vec::with_capacity(all.len());
        let (done, results) = sync_channel(all.len());
        for (at, thaw) in all.enumerate() {
            let (order, ordered) = sync_channel(1);
            let done = done.clone();
            thread::Builder::new().stack_size(STACK).spawn(move || {
                // An error: it has not to be thawed any more.
                if ordered.recv().is_ok() {
                    let _ = done.send((at, thaw()));
                }
            })?;
            orders.push(order);
        }
        Ok(Self { orders, results })
    }

    /// Lets the one with this number begin, once.
    pub(crate) fn begin(&self, at: usize) {
        if let Some(order) = self.orders.get(at) {
            // It waits for that.
            let _ = order.try_send(());
        }
    }

    /// The next one of those that have begun to end: its number, and what has come of it. Waits for
    /// it.
    pub(crate) fn next(&self) -> Option<(usize, io::Result<()>)> {
        self.results.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use crate::instance::tests::in_time;

    use super::*;

    type Thaw = Box<dyn FnOnce() -> io::Result<()> + Send>;

    #[test]
    fn one_that_waits_keeps_no_other_one() {
        let (answer, answers) = channel();
        let waits: Thaw = Box::new(move || answers.recv().map_err(io::Error::other));
        let fails: Thaw = Box::new(|| Err(io::ErrorKind::InvalidInput.into()));
        let never: Thaw = Box::new(|| Err(io::ErrorKind::Other.into()));
        in_time(move || {
            let thaws = Thaws::ready([fails, waits, never].into_iter()).unwrap();
            thaws.begin(1);
            thaws.begin(0);
            assert!(matches!(thaws.next(), Some((0, Err(_)))));
            answer.send(()).unwrap();
            assert!(matches!(thaws.next(), Some((1, Ok(())))));
        });
    }
}
