// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device, as a client of its vfio-user socket meets it.

#[cfg(test)]
mod commands;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod served;
