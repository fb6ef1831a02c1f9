//! Builds to be done, and which of them need others first.

use agent_api::build::{BuildRequest, Call, ContextOffer};
use agent_api::client::build::{BuildSpec, Offers, SpecError};
use indexmap::IndexMap;

/// One build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Job {
    /// Name of the target; only shown when there are several.
    pub(crate) name: String,
    pub(crate) spec: BuildSpec,
    /// Contexts that are results of other jobs: context → job.
    pub(crate) from_jobs: IndexMap<String, String>,
    /// How the answer to a call is printed.
    pub(crate) answer: AnswerFormat,
}

/// How the answer to a call is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum AnswerFormat {
    #[default]
    Text,
    Json,
}

/// A build whose contexts, Dockerfile and files are open.
pub(crate) struct Opened {
    pub(crate) name: String,
    pub(crate) request: BuildRequest,
    pub(crate) offers: Offers,
    from_jobs: IndexMap<String, String>,
}

impl Job {
    /// Opens and reads what it needs of this side.
    pub(crate) fn open(self) -> Result<Opened, SpecError> {
        let (request, offers) = self.spec.prepare(&|name| std::env::var(name).ok())?;
        Ok(Opened {
            name: self.name,
            request,
            offers,
            from_jobs: self.from_jobs,
        })
    }
}

impl Opened {
    /// Fills in the results it waited for.
    pub(crate) fn resolve(&mut self, images: &IndexMap<String, String>) {
        for (context, job) in &self.from_jobs {
            if let Some(id) = images.get(job) {
                let image = ContextOffer::Image {
                    reference: id.clone(),
                };
                self.request.named_contexts.insert(context.clone(), image);
            }
        }
    }

    /// Whether everything it waits for is done.
    pub(crate) fn is_ready(&self, images: &IndexMap<String, String>) -> bool {
        self.from_jobs.values().all(|job| images.contains_key(job))
    }
}

/// Reads `--call`: `build`, `check`, `outline`, `targets`, each with `,format=json`.
pub(crate) fn call(flag: &str) -> Result<(Call, AnswerFormat), String> {
    let mut parts = flag.split(',');
    let call = match parts.next().unwrap_or_default() {
        "" | "build" => Call::Build,
        "check" | "lint" => Call::Check,
        "outline" => Call::Outline,
        "targets" => Call::Targets,
        other => {
            return Err(format!(
                "invalid call {other:?}: use build, check, outline or targets"
            ));
        }
    };
    let mut format = AnswerFormat::Text;
    for part in parts {
        format = match part {
            "format=json" => AnswerFormat::Json,
            "format=text" => AnswerFormat::Text,
            other => return Err(format!("invalid part {other:?} of --call: use format=json")),
        };
    }
    Ok((call, format))
}

/// An error when jobs wait for each other.
pub(crate) fn check_order(jobs: &[Job]) -> Result<(), String> {
    let mut done: Vec<&str> = Vec::new();
    loop {
        let ready: Vec<&str> = jobs
            .iter()
            .filter(|job| !done.contains(&job.name.as_str()))
            .filter(|job| {
                job.from_jobs
                    .values()
                    .all(|needs| done.contains(&needs.as_str()))
            })
            .map(|job| job.name.as_str())
            .collect();
        if ready.is_empty() {
            break;
        }
        done.extend(ready);
    }
    let mut stuck = jobs.iter().filter(|job| !done.contains(&job.name.as_str()));
    match stuck.next() {
        None => Ok(()),
        Some(job) => {
            let needs: Vec<&str> = job.from_jobs.values().map(String::as_str).collect();
            Err(format!(
                "target {} can never be built: it needs {}, which is missing or needs it in turn",
                job.name,
                needs.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, needs: &[&str]) -> Job {
        Job {
            name: name.to_owned(),
            from_jobs: needs
                .iter()
                .map(|name| ((*name).to_owned(), (*name).to_owned()))
                .collect(),
            ..Job::default()
        }
    }

    #[test]
    fn orders_without_an_end_are_found() {
        assert_eq!(check_order(&[job("a", &["b"]), job("b", &[])]), Ok(()));
        let error = check_order(&[job("a", &["b"]), job("b", &["a"])]).unwrap_err();
        assert!(error.contains("target a"), "{error}");
        assert!(check_order(&[job("a", &["gone"])]).is_err());
    }

    #[test]
    fn results_become_contexts() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("Dockerfile"), "FROM b").unwrap();
        let mut images = IndexMap::new();
        let mut described = job("a", &["b"]);
        described.spec.context = directory.path().to_string_lossy().into_owned();
        let mut waiting = described.open().unwrap();
        assert!(!waiting.is_ready(&images));
        images.insert("b".to_owned(), "sha256:1".to_owned());
        assert!(waiting.is_ready(&images));
        waiting.resolve(&images);
        let reference = "sha256:1".to_owned();
        assert_eq!(
            waiting.request.named_contexts["b"],
            ContextOffer::Image { reference }
        );
    }

    #[test]
    fn calls_have_formats() {
        assert_eq!(
            call("check,format=json"),
            Ok((Call::Check, AnswerFormat::Json))
        );
        assert_eq!(call(""), Ok((Call::Build, AnswerFormat::Text)));
        assert!(call("frob").is_err() && call("check,x").is_err());
    }
}
