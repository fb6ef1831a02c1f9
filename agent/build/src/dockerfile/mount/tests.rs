use super::*;

fn parse(value: &str) -> Result<Mount, String> {
    check_unexpanded(value)?;
    Mount::parse(value, &mut |word| Ok(word.replace("$x", "X"))).map_err(|error| error.message)
}

fn plain(kind: MountType) -> Mount {
    Mount {
        kind,
        from: None,
        source: String::new(),
        target: String::new(),
        read_only: true,
        size_bytes: 0,
        id: None,
        sharing: None,
        required: false,
        env: None,
        mode: None,
        uid: None,
        gid: None,
    }
}

#[test]
fn every_option_is_read() {
    let table = [
        (
            "target=/a",
            Mount {
                target: "/a".into(),
                ..plain(MountType::Bind)
            },
        ),
        (
            "type=bind,from=base,src=/s$x,dst=/d,rw",
            Mount {
                from: Some("base".into()),
                source: "/sX".into(),
                target: "/d".into(),
                read_only: false,
                ..plain(MountType::Bind)
            },
        ),
        (
            "type=Cache,id=$x,target=/c,sharing=LOCKED,mode=0755,uid=1,gid=2,from=b,source=s",
            Mount {
                id: Some("X".into()),
                target: "/c".into(),
                sharing: Some(Sharing::Locked),
                mode: Some(0o755),
                uid: Some(1),
                gid: Some(2),
                from: Some("b".into()),
                source: "s".into(),
                read_only: false,
                ..plain(MountType::Cache)
            },
        ),
        (
            "type=cache,destination=/c,readonly=true",
            Mount {
                target: "/c".into(),
                ..plain(MountType::Cache)
            },
        ),
        (
            "type=tmpfs,target=/t,size=64m",
            Mount {
                target: "/t".into(),
                size_bytes: 64 << 20,
                read_only: false,
                ..plain(MountType::Tmpfs)
            },
        ),
        (
            "type=secret,id=key,env=KEY,required",
            Mount {
                id: Some("key".into()),
                env: Some("KEY".into()),
                required: true,
                ..plain(MountType::Secret)
            },
        ),
        (
            "type=ssh,required=1,mode=600",
            Mount {
                required: true,
                mode: Some(0o600),
                ..plain(MountType::Ssh)
            },
        ),
        (
            "type=bind,\"target=/a,\"\"b\"",
            Mount {
                target: "/a,\"b".into(),
                ..plain(MountType::Bind)
            },
        ),
        (
            "from=cost$,target=/a",
            Mount {
                from: Some("cost$".into()),
                target: "/a".into(),
                ..plain(MountType::Bind)
            },
        ),
    ];
    for (value, expected) in table {
        assert_eq!(parse(value), Ok(expected), "{value}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let table = [
        (
            "type=bnd",
            "unsupported mount type \"bnd\" (did you mean bind?)",
        ),
        ("type=volume", "unsupported mount type \"volume\""),
        (
            "tpye=bind",
            "unexpected key 'tpye' in 'tpye=bind' (did you mean type?)",
        ),
        ("target", "invalid field 'target' must be a key=value pair"),
        (
            "required,type=secret",
            "unexpected key 'required' for mount type 'bind'",
        ),
        (
            "size=1m,target=/a",
            "unexpected key 'size' for mount type 'bind'",
        ),
        ("type=tmpfs,size=big", "invalid value for size: big"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("type=cache,uid=+1", "invalid value +1 for uid"),
        (
            "type=cache,gid=4294967296",
            "invalid value 4294967296 for gid",
        ),
        (
            "type=cache,sharing=share",
            "unsupported sharing value \"share\" (did you mean shared?)",
        ),
        (
            "type=tmpfs,uid=1",
            "uid not allowed for \"tmpfs\" type mounts",
        ),
        ("mode=0755", "mode not allowed for \"bind\" type mounts"),
        (
            "type=secret,id=a,from=b",
            "secret mount should not have a from",
        ),
        (
            "type=secret,id=a,sharing=shared",
            "secret mount should not define sharing",
        ),
        (
            "type=secret",
            "invalid secret mount. one of source, target required",
        ),
        (
            "type=secret,id=a,source=b",
            "both source and id can't be set",
        ),
        ("sharing=shared", "invalid cache sharing set for bind mount"),
        (
            "FROM=$x",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("", "failed to parse csv mounts: it is empty"),
        (
            "a\"b",
            "failed to parse csv mounts: bare \" in non-quoted field",
        ),
        (
            "\"a\"b",
            "failed to parse csv mounts: extraneous or missing \" in quoted-field",
        ),
        (
            "\"a",
            "failed to parse csv mounts: extraneous or missing \" in quoted-field",
        ),
    ];
    for (value, message) in table {
        assert_eq!(parse(value), Err(message.into()), "{value}");
    }
}
