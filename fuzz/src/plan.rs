//! Planning a build of a hostile Dockerfile on a base image with hostile triggers.

use agent_build::dockerfile::Dockerfile;
use agent_build::plan::{self, BaseImage, Bases, BuildOptions};

/// Images asked for before giving up: each answer may ask for more.
const ROUNDS: usize = 4;

/// The Dockerfile; after a NUL, ONBUILD triggers of every base image, one a line. Whatever can be planned refers to
/// earlier vertices only and plans the same way twice.
pub fn plan(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == 0);
    let text = parts.next().unwrap_or_default();
    let triggers = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let Ok(dockerfile) = Dockerfile::parse(text, "Dockerfile") else {
        return;
    };
    let options = BuildOptions {
        all_stages: triggers.len() % 2 == 1,
        ..BuildOptions::default()
    };
    let mut known = Bases::default();
    for _ in 0..ROUNDS {
        let Ok(requests) = plan::bases(&dockerfile, &options, &known) else {
            return;
        };
        if requests.is_empty() {
            break;
        }
        for request in &requests {
            known.insert(request, base(&triggers));
        }
    }
    if let Ok(planned) = plan::plan(&dockerfile, &options, &known) {
        for (place, vertex) in planned.vertices.iter().enumerate() {
            assert!(vertex.inputs.iter().all(|input| input.0 < place));
            serde_json::to_string(&vertex.op).expect("an operation serialises");
        }
        let again = plan::plan(&dockerfile, &options, &known).expect("it worked before");
        assert!(planned == again);
    }
}

fn base(triggers: &str) -> BaseImage {
    let config = serde_json::json!({
        "os": "linux",
        "architecture": "amd64",
        "config": {
            "Env": ["PATH=/bin", "a=b"],
            "OnBuild": triggers.lines().collect::<Vec<_>>(),
        },
    });
    BaseImage {
        id: "sha256:0".into(),
        digest: None,
        layers: 1,
        config: serde_json::from_value(config).expect("a configuration"),
    }
}
