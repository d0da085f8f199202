// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device, as a driver meets it: register accesses and shared memory, and a clock that moves only when told to.

#[cfg(test)]
mod block;
#[cfg(test)]
mod bus_master;
#[cfg(test)]
mod driver;
#[cfg(test)]
mod echo;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod misbehaviour;
#[cfg(test)]
mod notifications;
#[cfg(test)]
mod packed;
#[cfg(test)]
mod queue_reset;
#[cfg(test)]
mod robust;
#[cfg(test)]
mod scsi;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod suspend;
#[cfg(test)]
mod types;
