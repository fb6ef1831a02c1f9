//! Pieces to a tree. Source: Go `text/template/parse/parse.go`.

use super::TemplateError;
use super::lex::{Piece, Token};
use super::value::{Nil, Value};
use std::collections::HashMap;

/// Nesting of actions and parentheses that is accepted.
const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    /// Prints its value unless it only sets a variable.
    Print(Pipeline),
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Template {
        at: usize,
        name: String,
        argument: Option<Pipeline>,
    },
    Break,
    Continue,
}

/// `$a, $b := command | command`
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    /// At most two.
    pub(super) variables: Vec<String>,
    /// `:=` makes the variables, `=` changes existing ones.
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone)]
pub(super) enum Operand {
    Constant(Value),
    Function(String),
    /// A value and the fields taken of it one after the other.
    Chain(Root, Vec<String>),
}

#[derive(Debug, Clone)]
pub(super) enum Root {
    Dot,
    Variable(String),
    Pipeline(Box<Pipeline>),
}

/// A parsed text: its own nodes and the templates it defines.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) defined: HashMap<String, Vec<Node>>,
}

pub(super) fn parse(pieces: Vec<Piece>) -> Result<Tree, TemplateError> {
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        defined: HashMap::new(),
        depth: 0,
    };
    match parser.block()? {
        (nodes, None) => Ok(Tree {
            nodes,
            defined: parser.defined,
        }),
        (_, Some(end)) => Err(TemplateError::new(
            end.at,
            format!("unexpected {{{{{}}}}}", end.word()),
        )),
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    defined: HashMap<String, Vec<Node>>,
    depth: usize,
}

/// What ended a block: `end`, or `else` with the action that follows it.
struct End {
    at: usize,
    rest: Option<Vec<(Token, bool)>>,
}

impl End {
    fn word(&self) -> &'static str {
        if self.rest.is_some() { "else" } else { "end" }
    }
}

impl Parser {
    /// Nodes up to an `end`, an `else` or the end of the text.
    fn block(&mut self) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (at, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action { at, tokens } => (at, tokens),
            };
            let keyword = match tokens.first() {
                Some((Token::Word(word), _)) => word.clone(),
                _ => String::new(),
            };
            let rest = || tokens[1..].to_vec();
            match keyword.as_str() {
                "end" => return Ok((nodes, Some(End { at, rest: None }))),
                "else" => {
                    return Ok((
                        nodes,
                        Some(End {
                            at,
                            rest: Some(rest()),
                        }),
                    ));
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "if" | "with" | "range" => nodes.push(self.control(&keyword, at, rest())?),
                "define" | "block" => {
                    let (name, argument) = name_and_argument(at, rest(), self.depth)?;
                    let (body, _) = self.body(at)?;
                    self.defined.insert(name.clone(), body);
                    if keyword == "block" {
                        nodes.push(Node::Template { at, name, argument });
                    }
                }
                "template" => {
                    let (name, argument) = name_and_argument(at, rest(), self.depth)?;
                    nodes.push(Node::Template { at, name, argument });
                }
                _ => nodes.push(Node::Print(pipeline(at, tokens, self.depth)?)),
            }
        }
        Ok((nodes, None))
    }

    fn control(
        &mut self,
        keyword: &str,
        at: usize,
        tokens: Vec<(Token, bool)>,
    ) -> Result<Node, TemplateError> {
        let value = pipeline(at, tokens, self.depth)?;
        let (then, end) = self.body(at)?;
        let otherwise = match end.rest {
            None => Vec::new(),
            Some(rest) if rest.is_empty() => self.body(at)?.0,
            Some(mut rest) => match rest.remove(0) {
                (Token::Word(next), _) if next == keyword && keyword != "range" => {
                    self.depth += 1;
                    let node = self.control(keyword, end.at, rest)?;
                    self.depth -= 1;
                    vec![node]
                }
                _ => {
                    return Err(TemplateError::new(
                        end.at,
                        format!("unexpected text after else in {keyword}"),
                    ));
                }
            },
        };
        Ok(match keyword {
            "if" => Node::If {
                condition: value,
                then,
                otherwise,
            },
            "with" => Node::With {
                value,
                then,
                otherwise,
            },
            _ => Node::Range {
                over: value,
                body: then,
                otherwise,
            },
        })
    }

    /// A block that must be closed.
    fn body(&mut self, at: usize) -> Result<(Vec<Node>, End), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TemplateError::new(at, "nested too deeply"));
        }
        let (nodes, end) = self.block()?;
        self.depth -= 1;
        Ok((
            nodes,
            end.ok_or_else(|| TemplateError::new(at, "no {{end}} for this action"))?,
        ))
    }
}

fn name_and_argument(
    at: usize,
    mut tokens: Vec<(Token, bool)>,
    depth: usize,
) -> Result<(String, Option<Pipeline>), TemplateError> {
    let name = match tokens.first() {
        Some((Token::Str(name), _)) => name.clone(),
        _ => return Err(TemplateError::new(at, "the name of a template is a string")),
    };
    tokens.remove(0);
    let argument = if tokens.is_empty() {
        None
    } else {
        Some(pipeline(at, tokens, depth)?)
    };
    Ok((name, argument))
}

fn pipeline(
    at: usize,
    tokens: Vec<(Token, bool)>,
    depth: usize,
) -> Result<Pipeline, TemplateError> {
    let mut tokens = Tokens {
        at,
        tokens: tokens.into_iter().peekable(),
        depth,
    };
    let pipeline = tokens.pipeline()?;
    match tokens.tokens.next() {
        None => Ok(pipeline),
        Some((token, _)) => Err(TemplateError::new(at, format!("unexpected {token:?}"))),
    }
}

struct Tokens {
    at: usize,
    tokens: std::iter::Peekable<std::vec::IntoIter<(Token, bool)>>,
    depth: usize,
}

impl Tokens {
    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let (variables, declares) = self.assignment();
        let mut commands = vec![self.command()?];
        while self
            .tokens
            .next_if(|(token, _)| *token == Token::Pipe)
            .is_some()
        {
            commands.push(self.command()?);
        }
        if commands.iter().any(Vec::is_empty) {
            return Err(self.error("missing value for a command"));
        }
        Ok(Pipeline {
            at: self.at,
            variables,
            declares,
            commands,
        })
    }

    /// `$a :=`, `$a =`, `$a, $b :=`, looked at without consuming anything else.
    fn assignment(&mut self) -> (Vec<String>, bool) {
        let ahead: Vec<_> = self
            .tokens
            .clone()
            .take(4)
            .map(|(token, _)| token)
            .collect();
        let (variables, length) = match ahead.as_slice() {
            [
                Token::Variable(a),
                Token::Comma,
                Token::Variable(b),
                Token::Declare | Token::Assign,
            ] => (vec![a.clone(), b.clone()], 4),
            [Token::Variable(a), Token::Declare | Token::Assign, ..] => (vec![a.clone()], 2),
            _ => return (Vec::new(), false),
        };
        let declares = ahead[length - 1] == Token::Declare;
        self.tokens.by_ref().take(length).for_each(drop);
        (variables, declares)
    }

    fn command(&mut self) -> Result<Vec<Operand>, TemplateError> {
        let mut operands = Vec::new();
        while let Some((token, _)) = self
            .tokens
            .next_if(|(token, _)| !matches!(token, Token::Pipe | Token::Close))
        {
            operands.push(match token {
                Token::Str(text) => Operand::Constant(text.into()),
                Token::Int(value) => Operand::Constant(value.into()),
                Token::Float(value) => Operand::Constant(Value::Float(value)),
                Token::Word(word) => match word.as_str() {
                    "true" => Operand::Constant(true.into()),
                    "false" => Operand::Constant(false.into()),
                    "nil" => Operand::Constant(Value::Nil(Nil::Pointer)),
                    _ => Operand::Function(word),
                },
                Token::Field(name) if name.is_empty() => Operand::Chain(Root::Dot, self.fields()),
                Token::Field(name) => {
                    let mut fields = vec![name];
                    fields.extend(self.fields());
                    Operand::Chain(Root::Dot, fields)
                }
                Token::Variable(name) => Operand::Chain(Root::Variable(name), self.fields()),
                Token::Open => {
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return Err(self.error("nested too deeply"));
                    }
                    let inner = self.pipeline()?;
                    self.depth -= 1;
                    if self.tokens.next().map(|(token, _)| token) != Some(Token::Close) {
                        return Err(self.error("unclosed left parenthesis"));
                    }
                    Operand::Chain(Root::Pipeline(Box::new(inner)), self.fields())
                }
                other => return Err(self.error(&format!("unexpected {other:?}"))),
            });
        }
        Ok(operands)
    }

    /// `.a.b` written without a space after what they belong to.
    fn fields(&mut self) -> Vec<String> {
        let mut fields = Vec::new();
        while let Some((Token::Field(name), _)) = self.tokens.next_if(|(token, spaced)| {
            !spaced && matches!(token, Token::Field(name) if !name.is_empty())
        }) {
            fields.push(name);
        }
        fields
    }

    fn error(&self, reason: &str) -> TemplateError {
        TemplateError::new(self.at, reason)
    }
}
