//! Threads that give way to those that answer calls: syncs, the page, the journal, and live lookups,
//! which wait for a CRM and take next to no processor.

/// As nice(2) counts: of a processor that others want too, such a thread gets a tenth of their share.
const STEPS: i32 = 10;

/// Lets every other thread come first that wants the same processor. For the calling thread alone, and
/// the threads and processes that it starts.
pub fn give_way() {
    if let Err(error) = rustix::process::nice(STEPS) {
        tracing::debug!(%error, "a background thread keeps its priority");
    }
}

/// Lets a thread that answers calls have this processor at once, where one waits for it.
///
/// To be called between pieces of work below a millisecond: without it the kernel looks only at its
/// next tick, up to four milliseconds later. For work that holds nothing a call waits for.
pub fn step_aside() {
    std::thread::yield_now();
}
