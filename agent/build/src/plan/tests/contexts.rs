//! Directories of the client's in the place of images and stages.

use super::*;

fn with(name: &str) -> BuildOptions {
    BuildOptions {
        contexts: [(name.to_owned(), ContextSource::Local)].into(),
        ..options()
    }
}

/// The copy of a whole context to an empty file system.
fn is_copy_of(plan: &Plan, vertex: VertexId, context: &str) -> bool {
    let vertex = &plan.vertices[vertex.0];
    let Op::Copy(op) = &vertex.op else {
        return false;
    };
    let [CopySource::Paths { input, path, .. }] = &op.sources[..] else {
        return false;
    };
    let from = &plan.vertices[vertex.inputs[input.0].0].op;
    op.root.is_none()
        && (path.as_str(), op.destination.as_str()) == ("/", "/")
        && matches!(from, Op::Context(from) if from.name == context)
}

#[test]
fn steps_on_a_context_are_laid_over_a_copy_of_it() {
    let text = "FROM mybase\nRUN a\nCOPY --from=mybase /x /\n";
    let plan = planned_with(text, &with("mybase"), &[]).unwrap();
    let run = plan
        .vertices
        .iter()
        .find(|vertex| matches!(vertex.op, Op::Run(_)))
        .unwrap();
    let root = run.op.root().unwrap();
    assert!(is_copy_of(&plan, run.inputs[root.0], "mybase"), "{plan}");
    assert_eq!(plan.base, Some(run.inputs[root.0]));
    // A copy from the context reads the context itself.
    let copy = plan.vertices.last().unwrap();
    let Op::Copy(op) = &copy.op else {
        panic!("{plan}")
    };
    let [CopySource::Paths { input, .. }] = &op.sources[..] else {
        panic!("{plan}")
    };
    let from = &plan.vertices[copy.inputs[input.0].0].op;
    assert!(matches!(from, Op::Context(_)), "{plan}");
}

#[test]
fn a_context_alone_is_an_image_of_its_files() {
    for text in ["FROM mybase\n", "FROM mybase\nENV a=b\n"] {
        let plan = planned_with(text, &with("mybase"), &[]).unwrap();
        assert!(is_copy_of(&plan, plan.target.unwrap(), "mybase"), "{plan}");
    }
    // In the place of a stage, too, and under a stage that starts from that one.
    let text = "FROM busybox AS first\nRUN a\nFROM first\nENV a=b\n";
    let plan = planned_with(text, &with("first"), &[]).unwrap();
    assert!(is_copy_of(&plan, plan.target.unwrap(), "first"), "{plan}");
}
