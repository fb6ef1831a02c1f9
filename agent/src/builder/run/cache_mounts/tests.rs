//! Who gets which directory, and what is left of it.

use std::time::Duration;

use super::*;

fn request(id: &str, sharing: CacheSharing) -> CacheRequest {
    CacheRequest::new(id.into(), sharing, Seed::Empty)
}

/// A lease of a directory that is made.
async fn leased(mounts: &CacheMounts, request: CacheRequest) -> Lease {
    let lease = mounts.lease(&request).await.unwrap();
    lease.make(&request).await.unwrap();
    lease
}

fn mounts() -> (tempfile::TempDir, CacheMounts) {
    let dir = tempfile::tempdir().unwrap();
    let mounts = CacheMounts::new(dir.path().join("mounts"), TaskTracker::new());
    (dir, mounts)
}

#[tokio::test]
async fn shared_directories_are_shared_and_private_ones_are_not() {
    let (_dir, mounts) = mounts();
    let shared = request("a", CacheSharing::Shared);
    let (one, two) = (
        leased(&mounts, shared.clone()).await,
        leased(&mounts, shared).await,
    );
    assert_eq!(one.data(), two.data());
    let private = leased(&mounts, request("a", CacheSharing::Private)).await;
    assert_ne!(private.data(), one.data());
    let other = leased(&mounts, request("b", CacheSharing::Shared)).await;
    assert_ne!(other.data(), one.data());
    fs::write(private.data().join("kept"), "x").unwrap();
    let path = private.data();
    for lease in [one, two, private] {
        lease.release().await;
    }
    // What a private step left is there for the next one, once the first is taken.
    let first = leased(&mounts, request("a", CacheSharing::Private)).await;
    let second = leased(&mounts, request("a", CacheSharing::Private)).await;
    assert_ne!(first.data(), second.data());
    assert!([first.data(), second.data()].contains(&path));
    assert!(path.join("kept").exists());
}

#[tokio::test]
async fn a_locked_directory_is_waited_for() {
    let (_dir, mounts) = mounts();
    let locked = request("a", CacheSharing::Locked);
    let first = leased(&mounts, locked.clone()).await;
    let mut second = {
        let mounts = mounts.clone();
        tokio::spawn(async move { leased(&mounts, locked).await.data() })
    };
    let early = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(early.is_err(), "it did not wait");
    let path = first.data();
    first.release().await;
    assert_eq!(second.await.unwrap(), path);
}

#[tokio::test]
async fn a_step_that_gives_up_waiting_holds_nothing() {
    let (_dir, mounts) = mounts();
    let locked = request("a", CacheSharing::Locked);
    let first = leased(&mounts, locked.clone()).await;
    let waiting = tokio::time::timeout(Duration::from_millis(50), leased(&mounts, locked.clone()));
    assert!(waiting.await.is_err());
    first.release().await;
    let wait = Duration::from_secs(30);
    tokio::time::timeout(wait, mounts.lease(&locked))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_a_directory_begins_with_is_part_of_what_it_is() {
    let (dir, mounts) = mounts();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/file"), "seeded").unwrap();
    let seeded = CacheRequest::new(
        "a".into(),
        CacheSharing::Shared,
        Seed::Tree {
            layers: vec![tree],
            identity: "t1".into(),
        },
    );
    let lease = leased(&mounts, seeded).await;
    let text = fs::read_to_string(lease.data().join("sub/file")).unwrap();
    assert_eq!(text, "seeded");
    let plain = leased(&mounts, request("a", CacheSharing::Shared)).await;
    assert_eq!(fs::read_dir(plain.data()).unwrap().count(), 0);
    if rustix::process::geteuid().is_root() {
        let ownership = Ownership {
            uid: 5,
            gid: 6,
            mode: 0o2750,
        };
        let owned = CacheRequest::new("a".into(), CacheSharing::Shared, Seed::Owned(ownership));
        let lease = leased(&mounts, owned).await;
        let metadata = fs::metadata(lease.data()).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777),
            (5, 6, 0o2750)
        );
    }
}

#[tokio::test]
async fn mounts_are_listed_and_removed_when_nobody_has_them() {
    let (_dir, mounts) = mounts();
    let asked =
        request("/go", CacheSharing::Locked).described(Some("/root/.cache"), &["make".into()]);
    let lease = leased(&mounts, asked).await;
    fs::write(lease.data().join("file"), vec![0; 10_000]).unwrap();
    let [listed] = &mounts.list()[..] else {
        panic!("one was made");
    };
    assert!(listed.in_use && listed.size >= 10_000 && listed.uses == 0);
    assert_eq!(
        listed.description,
        "cached mount /root/.cache from exec make with id \"/go\""
    );
    assert!(matches!(mounts.remove(&listed.id), Err(Error::Conflict(_))));
    lease.release().await;
    let again = mounts.list().remove(0);
    assert!(!again.in_use && again.uses == 1 && again.last_used.is_some());
    assert!(mounts.remove(&again.id).unwrap() >= 10_000);
    assert!(mounts.list().is_empty());
    assert!(matches!(mounts.remove("../x"), Err(Error::NotFound(_))));
    assert_eq!(fs::read_dir(&mounts.0.directory).unwrap().count(), 0);
}

#[tokio::test]
async fn a_directory_is_measured_once_after_each_use() {
    let (_dir, mounts) = mounts();
    let asked = request("a", CacheSharing::Shared);
    let lease = leased(&mounts, asked.clone()).await;
    let data = lease.data();
    fs::write(data.join("file"), vec![1; 100_000]).unwrap();
    lease.release().await;
    assert!(mounts.list()[0].size >= 100_000);
    mounts.0.tasks.close();
    mounts.0.tasks.wait().await;
    let measured = mounts.list()[0].size;
    // Not by a step, which would say so at its end: nobody looks again until then.
    fs::remove_file(data.join("file")).unwrap();
    assert_eq!(mounts.list()[0].size, measured);
    leased(&mounts, asked).await.release().await;
    assert!(mounts.list()[0].size < 100_000);
}

#[tokio::test]
async fn who_removes_second_is_told_that_there_is_nothing() {
    let (_dir, mounts) = mounts();
    for _ in 0..100 {
        let lease = leased(&mounts, request("a", CacheSharing::Shared)).await;
        lease.release().await;
        let id = mounts.list().remove(0).id;
        let remove = || {
            let (mounts, id) = (mounts.clone(), id.clone());
            std::thread::spawn(move || mounts.remove(&id))
        };
        let ended = [remove(), remove()].map(|thread| thread.join().unwrap());
        for removed in &ended {
            assert!(
                matches!(removed, Ok(_) | Err(Error::NotFound(_))),
                "{ended:?}"
            );
        }
        assert!(ended.iter().any(Result::is_ok));
    }
    assert_eq!(fs::read_dir(&mounts.0.directory).unwrap().count(), 0);
}

#[tokio::test]
async fn half_made_directories_are_swept() {
    let (_dir, mounts) = mounts();
    let lease = leased(&mounts, request("a", CacheSharing::Shared)).await;
    fs::create_dir_all(mounts.0.directory.join("new-1/data/x")).unwrap();
    fs::create_dir_all(mounts.0.directory.join("gone-1/data/x")).unwrap();
    mounts.left().remove();
    assert_eq!(fs::read_dir(&mounts.0.directory).unwrap().count(), 1);
    drop(lease);
}

#[tokio::test]
async fn a_directory_whose_record_is_lost_is_not_forgotten() {
    let (_dir, mounts) = mounts();
    let asked = request("a", CacheSharing::Shared);
    leased(&mounts, asked.clone()).await.release().await;
    let id = mounts.list().remove(0).id;
    // As a power cut leaves it.
    fs::write(mounts.0.directory.join(&id).join(RECORD), "").unwrap();
    let listed = mounts.list();
    assert_eq!((listed.len(), listed[0].uses), (1, 0));
    leased(&mounts, asked).await.release().await;
    assert_eq!(mounts.list()[0].uses, 1);
    mounts.remove(&id).unwrap();
    assert!(mounts.list().is_empty());
}

/// Directories in each other: more than a path has room for, or the stack below.
fn nest(directory: &Path) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = openat(CWD, directory, flags, Mode::empty()).unwrap();
    for _ in 0..4000 {
        mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = openat(&here, "d", flags, Mode::empty()).unwrap();
    }
}

#[tokio::test]
async fn what_a_step_nested_without_end_can_be_removed() {
    let (_dir, mounts) = mounts();
    let lease = leased(&mounts, request("a", CacheSharing::Shared)).await;
    nest(&lease.data());
    lease.release().await;
    // As a killed daemon leaves it.
    let left = mounts.0.directory.join("gone-1");
    fs::create_dir(&left).unwrap();
    nest(&left);
    let directory = mounts.0.directory.clone();
    let removing = move || {
        mounts.remove(&mounts.list()[0].id).unwrap();
        mounts.left().remove();
    };
    let thread = std::thread::Builder::new().stack_size(128 << 10);
    thread.spawn(removing).unwrap().join().unwrap();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}
