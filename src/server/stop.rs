//! The wish to stop: from a signal, from a parent that is gone, or from the node itself; asked for once, heard by all.

use std::io::Read;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The exit status after a second signal: the process ended without draining.
const ENDED_AT_ONCE: i32 = 1;

/// Supervisors send a signal to a process and to its group, so that it arrives twice: for this long, that is once.
const ECHO: Duration = Duration::from_millis(500);

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
}

/// Turns the first SIGTERM or SIGINT into a stop; a later one ends the process at once.
///
/// # Errors
/// When the handlers can't be installed.
pub fn on_signals(trigger: StopTrigger) -> std::io::Result<()> {
    let mut first = Signals::new()?;
    tokio::spawn(async move {
        first.next().await;
        tracing::info!("stopping");
        trigger.stop();
        tokio::time::sleep(ECHO).await;
        // New ones: they hear nothing of what came before.
        let Ok(mut second) = Signals::new() else { return };
        second.next().await;
        tracing::warn!("a second signal: ending at once");
        std::process::exit(ENDED_AT_ONCE);
    });
    Ok(())
}

/// The signals that ask to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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
