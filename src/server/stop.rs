//! The wish to stop: from a signal, from a parent that is gone, or from the node itself; asked for once, heard by all.

use std::io::Read;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The exit status after a second signal: the process ended without draining.
const ENDED_AT_ONCE: i32 = 1;

/// Asks everybody who holds the other half to stop.
#[derive(Clone, Debug)]
pub struct StopTrigger(watch::Sender<bool>);

/// Hears that it is time to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Both halves.
pub fn stop_pair() -> (StopTrigger, Stop) {
    let (sender, receiver) = watch::channel(false);
    (StopTrigger(sender), Stop(receiver))
}

impl StopTrigger {
    /// Asks to stop; more than once is as good as once.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns when it is time to stop, at once if it already was; also when nobody is left who could ask.
    pub async fn requested(&mut self) {
        // An error means that the trigger is gone: then nobody serves on purpose any more.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// The same as a future of its own, for those that take one.
    pub async fn into_future(mut self) {
        self.requested().await;
    }
}

/// Turns the first SIGTERM or SIGINT into a stop; a second one ends the process at once.
///
/// # Errors
/// When the handlers can't be installed.
pub fn on_signals(trigger: StopTrigger) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping");
        trigger.stop();
        either(&mut terminate, &mut interrupt).await;
        tracing::warn!("a second signal: ending at once");
        std::process::exit(ENDED_AT_ONCE);
    });
    Ok(())
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Stops when standard input ends: whoever holds its other end, a parent process, is then gone, however it died.
pub fn on_parent_gone(trigger: StopTrigger) {
    std::thread::spawn(move || {
        let mut scratch = [0; 64];
        // What arrives is of no interest; the end or an error is.
        while matches!(std::io::stdin().read(&mut scratch), Ok(n) if n > 0) {}
        tracing::info!("the parent process is gone: stopping");
        trigger.stop();
    });
}
