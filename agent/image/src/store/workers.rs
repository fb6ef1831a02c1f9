//! Several of the same kind at once: layers that are pulled, pushed or taken over from another store.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Does `work` on all items, up to `threads` at a time, in the order of the items. The first error ends it: nothing more is
/// begun, and `give_up` ends what the others are at, once. Returns the results in the order in which they came.
///
/// # Errors
/// The first one of `work`.
pub(super) fn all_at_once<I: Send, T: Send, E: Send>(
    items: VecDeque<I>,
    threads: usize,
    give_up: impl Fn() + Sync,
    work: impl Fn(I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let threads = items.len().min(threads.max(1));
    let queue = Mutex::new(items);
    let done = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().is_none() {
                    let Some(item) = queue.lock().pop_front() else {
                        return;
                    };
                    match work(item) {
                        Ok(result) => done.lock().push(result),
                        Err(error) => {
                            let mut failed = failed.lock();
                            if failed.is_none() {
                                *failed = Some(error);
                                give_up();
                            }
                        }
                    }
                }
            });
        }
    });
    match failed.into_inner() {
        Some(error) => Err(error),
        None => Ok(done.into_inner()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, Condvar, Mutex as StdMutex};

    use super::*;

    #[test]
    fn all_items_are_done_once_and_so_many_at_a_time() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let together = Barrier::new(3);
        let give_up = || unreachable!("nothing fails");
        let mut done = all_at_once::<_, _, ()>((0..9).collect(), 3, give_up, |item| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            together.wait();
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(item)
        })
        .unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..9).collect::<Vec<_>>());
        assert_eq!(most.into_inner(), 3);
        assert_eq!(
            all_at_once::<u8, (), ()>(VecDeque::new(), 3, || (), |_| Ok(())),
            Ok(vec![])
        );
    }

    #[test]
    fn the_first_error_ends_the_others_and_nothing_more_is_begun() {
        let (begun, gave_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (given_up, woken) = (StdMutex::new(false), Condvar::new());
        let give_up = || {
            gave_up.fetch_add(1, Ordering::SeqCst);
            *given_up.lock().unwrap() = true;
            woken.notify_all();
        };
        let failed = all_at_once::<_, (), _>((0..9).collect(), 2, give_up, |item| {
            begun.fetch_add(1, Ordering::SeqCst);
            if item == 0 {
                return Err("broken".to_owned());
            }
            // As a download: until somebody ends it.
            let given_up = given_up.lock().unwrap();
            drop(woken.wait_while(given_up, |given_up| !*given_up).unwrap());
            Err("ended".to_owned())
        });
        assert_eq!(failed, Err("broken".to_owned()));
        assert_eq!(gave_up.into_inner(), 1);
        assert!(begun.into_inner() <= 2);
    }
}
