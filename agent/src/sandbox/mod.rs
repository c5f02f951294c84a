//! The stand-in workspace.
