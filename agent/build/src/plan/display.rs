//! A plan as text, for people and for tests: steps with what they read and do, then the result.

use std::fmt;

use super::{Plan, Vertex};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for vertex in &self.vertices {
            writeln!(f, "{vertex}")?;
        }
        let layers: Vec<String> = self.layers.iter().map(|id| id.0.to_string()).collect();
        let number =
            |id: Option<super::VertexId>| id.map_or("nothing".to_owned(), |id| id.0.to_string());
        writeln!(
            f,
            "result {} = {} + [{}] for {}",
            number(self.target),
            number(self.base),
            layers.join(" "),
            self.platform
        )?;
        let config = serde_json::to_string(&self.config.config).map_err(|_| fmt::Error)?;
        writeln!(f, "config {config}")?;
        for line in &self.config.history {
            let layer = if line.empty_layer { "-" } else { "+" };
            writeln!(f, "{layer} {}", line.created_by.escape_debug())?;
        }
        for lint in &self.warnings {
            writeln!(f, "{}:{}: {}", lint.rule, lint.lines.first, lint.message)?;
        }
        Ok(())
    }
}

impl fmt::Display for Vertex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inputs: Vec<String> = self.inputs.iter().map(|id| id.0.to_string()).collect();
        let inputs = if inputs.is_empty() {
            String::new()
        } else {
            format!(" <- {}", inputs.join(" "))
        };
        let no_cache = if self.no_cache { " (no cache)" } else { "" };
        let op = String::from_utf8(self.op.canonical()).map_err(|_| fmt::Error)?;
        write!(f, "{} {}{inputs}{no_cache}\n    {op}", self.id.0, self.name)
    }
}
