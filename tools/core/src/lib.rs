//! The pure files of the module.
