//! Clusters of real processes: the built program, loopback sockets, disks, kill -9.
//!
//! What the simulator shows of the protocol, these show of the program around it: that what was acknowledged is on
//! disk, that processes end and come back as they should, that clients who misbehave disturb nobody. One cluster at a
//! time, since the tests measure time on a small machine. Each cluster has loopback addresses of its own, so nothing
//! waits for ports.

mod changes;
mod client;
mod connections;
mod contexts;
mod crash;
mod crowd;
mod deaths;
mod dev;
mod directories;
mod forget;
mod harness;
mod hostile;
mod inspect;
mod keys;
mod large;
mod lifecycle;
mod load;
mod overload;
mod presence;
mod recover;
mod sessions;
mod settings;
mod upgrade;
