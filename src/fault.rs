//! What to make of faults: an error told in one line, with everything that caused it, and a lock
//! whose holder panicked.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Gives an error and its causes, one after another; what an error repeats of its cause is said
/// once.
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

/// Takes a lock, also after a panic of somebody who held it: what we lock is never left half done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layered {
        #[error("the port is taken")]
        Cause,
        #[error("cannot listen")]
        Says(#[source] Box<Layered>),
        #[error(transparent)]
        Repeats(Box<Layered>),
    }

    #[test]
    fn every_cause_is_told_once() {
        let says = Layered::Says(Box::new(Layered::Cause));
        assert_eq!(
            told(&Layered::Repeats(Box::new(says))),
            "cannot listen: the port is taken"
        );
    }
}
