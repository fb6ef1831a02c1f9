//! Who gets which directory, and what is left of it.

use std::time::Duration;

use super::*;

fn request(id: &str, sharing: CacheSharing) -> CacheRequest {
    CacheRequest::new(id.into(), sharing, Seed::Empty)
}

fn mounts() -> (tempfile::TempDir, CacheMounts) {
    let dir = tempfile::tempdir().unwrap();
    let mounts = CacheMounts::new(dir.path().join("mounts"));
    (dir, mounts)
}

#[tokio::test]
async fn shared_directories_are_shared_and_private_ones_are_not() {
    let (_dir, mounts) = mounts();
    let shared = request("a", CacheSharing::Shared);
    let (one, two) = (
        mounts.lease(shared.clone()).await.unwrap(),
        mounts.lease(shared).await.unwrap(),
    );
    assert_eq!(one.data(), two.data());
    let private = mounts
        .lease(request("a", CacheSharing::Private))
        .await
        .unwrap();
    assert_ne!(private.data(), one.data());
    let other = mounts
        .lease(request("b", CacheSharing::Shared))
        .await
        .unwrap();
    assert_ne!(other.data(), one.data());
    fs::write(private.data().join("kept"), "x").unwrap();
    let path = private.data();
    for lease in [one, two, private] {
        lease.release().await;
    }
    // What a private step left is there for the next one, once the first is taken.
    let first = mounts
        .lease(request("a", CacheSharing::Private))
        .await
        .unwrap();
    let second = mounts
        .lease(request("a", CacheSharing::Private))
        .await
        .unwrap();
    assert_ne!(first.data(), second.data());
    assert!([first.data(), second.data()].contains(&path));
    assert!(path.join("kept").exists());
}

#[tokio::test]
async fn a_locked_directory_is_waited_for() {
    let (_dir, mounts) = mounts();
    let locked = request("a", CacheSharing::Locked);
    let first = mounts.lease(locked.clone()).await.unwrap();
    let mut second = {
        let mounts = mounts.clone();
        tokio::spawn(async move { mounts.lease(locked).await.unwrap().data() })
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
    let first = mounts.lease(locked.clone()).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(50), mounts.lease(locked.clone()));
    assert!(waiting.await.is_err());
    first.release().await;
    let wait = Duration::from_secs(30);
    tokio::time::timeout(wait, mounts.lease(locked))
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
    let lease = mounts.lease(seeded).await.unwrap();
    let text = fs::read_to_string(lease.data().join("sub/file")).unwrap();
    assert_eq!(text, "seeded");
    let plain = mounts
        .lease(request("a", CacheSharing::Shared))
        .await
        .unwrap();
    assert_eq!(fs::read_dir(plain.data()).unwrap().count(), 0);
    if rustix::process::geteuid().is_root() {
        let ownership = Ownership {
            uid: 5,
            gid: 6,
            mode: 0o2750,
        };
        let owned = CacheRequest::new("a".into(), CacheSharing::Shared, Seed::Owned(ownership));
        let lease = mounts.lease(owned).await.unwrap();
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
    let lease = mounts.lease(asked).await.unwrap();
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
async fn half_made_directories_are_swept() {
    let (_dir, mounts) = mounts();
    let lease = mounts
        .lease(request("a", CacheSharing::Shared))
        .await
        .unwrap();
    fs::create_dir_all(mounts.0.directory.join("new-1/data/x")).unwrap();
    fs::create_dir_all(mounts.0.directory.join("gone-1/data/x")).unwrap();
    mounts.sweep();
    assert_eq!(fs::read_dir(&mounts.0.directory).unwrap().count(), 1);
    drop(lease);
}
