// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `watch`: a line for each change of state.

use virtio_stop::device::System;
use virtio_stop::signals::Signals;
use virtio_stop::watch::{Event, Happened, Watch};
use virtio_stop::{reason, resolve, Error, Exit, Result};

use super::print::{self, Cell};

/// So wide is the name of a device and a state, that lines are aligned.
const WIDTHS: (usize, usize) = (10, 11);

pub(crate) fn watch(system: &System, names: &[String], json: bool) -> Result<Exit> {
    let signals = Signals::catch().map_err(Error::Signals)?;
    let mut watch = match names.is_empty() {
        true => Watch::all(system)?,
        false => Watch::these(system, resolve(system, names)?)?,
    };
    loop {
        for event in watch.look()? {
            let more = match json {
                true => print::line(&event)?,
                false => print::text(&in_words(&event))?,
            };
            if !more {
                return Ok(Exit::Done);
            }
        }
        if signals.last().is_some() {
            return Ok(Exit::Done);
        }
        if watch.is_over() {
            return Ok(Exit::Gone);
        }
        watch.wait(&signals)?;
    }
}

fn in_words(event: &Event) -> String {
    let state = match event.event {
        Happened::Gone => "gone",
        _ => event.state.as_deref().unwrap_or_default(),
    };
    let style = print::of_state(Some(state));
    let reason = event.reason.as_deref().filter(|&reason| reason != "none");
    let device = Cell::plain(format!("{:1$}", event.device, WIDTHS.0));
    print::table(&[match reason {
        None => vec![device, Cell::styled(style, state)],
        Some(reason) => vec![
            device,
            Cell::styled(style, format!("{state:0$}", WIDTHS.1)),
            Cell::plain(reason::explain(reason)),
        ],
    }])
}
