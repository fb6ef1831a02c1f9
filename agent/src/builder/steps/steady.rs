//! Reading what others may change meanwhile.
//!
//! ```text
//! reading ─▶ work ─▶ reading ── the same ──▶ the work was done on what was read
//!              ▲         └────── another ──┐
//!              └── what was made is dropped ┘   at most [`ATTEMPTS`] times
//! ```
//!
//! Nothing is locked and nothing waited for. Must not: know what is read, or what is done with it.

/// How often work is done before what changes all the time is taken as it is.
const ATTEMPTS: usize = 4;

/// Does work until what it reads is the same afterwards as it was before; `before` is what it was when it was last read. Returns
/// what the last attempt made and what it was made of, if that can be told.
pub(super) async fn steady<T, R, E, Reading, Working>(
    mut before: R,
    mut read: impl FnMut() -> Reading,
    mut work: impl FnMut() -> Working,
) -> Result<(T, Option<R>), E>
where
    R: PartialEq,
    Reading: Future<Output = Result<R, E>>,
    Working: Future<Output = Result<T, E>>,
{
    let mut attempt = 1;
    loop {
        let made = work().await?;
        let after = read().await?;
        if after == before {
            return Ok((made, Some(after)));
        }
        if attempt == ATTEMPTS {
            return Ok((made, None));
        }
        before = after;
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Steady work on a number that `during` changes while the n-th attempt is made. What is made is the number as it was in the
    /// middle of that.
    async fn worked(first: u32, during: impl Fn(u32) -> Option<u32>) -> (u32, Option<u32>, u32) {
        let (file, attempts) = (Cell::new(first), Cell::new(0));
        let read = || async { Ok::<_, ()>(file.get()) };
        let work = || async {
            attempts.set(attempts.get() + 1);
            if let Some(new) = during(attempts.get()) {
                file.set(new);
            }
            Ok(file.get())
        };
        let (made, reading) = steady(first, read, work).await.unwrap();
        (made, reading, attempts.get())
    }

    #[tokio::test]
    async fn what_does_not_change_is_worked_on_once() {
        assert_eq!(worked(1, |_| None).await, (1, Some(1), 1));
    }

    #[tokio::test]
    async fn work_on_what_changed_is_done_again() {
        let once = |attempt| (attempt == 1).then_some(2);
        assert_eq!(worked(1, once).await, (2, Some(2), 2));
        let twice = |attempt| (attempt <= 2).then_some(attempt + 1);
        assert_eq!(worked(1, twice).await, (3, Some(3), 3));
    }

    #[tokio::test]
    async fn what_changes_all_the_time_is_taken_as_it_is_and_is_nothing_known() {
        let attempts = u32::try_from(ATTEMPTS).unwrap();
        let always = |attempt| Some(attempt + 1);
        assert_eq!(worked(1, always).await, (attempts + 1, None, attempts));
    }
}
