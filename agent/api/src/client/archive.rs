//! Files of containers: archives of paths, in and out, and images of containers.

use super::containers::of;
use super::error::{ClientError, Result};
use super::request::Query;
use super::stream::{ByteStream, bytes_of};
use super::transport::Body;
use super::{Client, decode, empty};
use crate::types::{IdResponse, PATH_STAT_HEADER, PathStat};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http::{HeaderValue, Method, Response, header};
use http_body_util::{BodyExt, StreamBody};
use std::io;

/// How to unpack an archive in a container.
#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// Directory in the container.
    pub path: String,
    /// Let neither directories replace files nor files directories.
    pub no_overwrite_dir_non_dir: bool,
    /// Everything belongs to the container's user, instead of whom the archive names.
    pub copy_uid_gid: bool,
}

/// What image to make of a container.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Name of the image, without tag.
    pub repository: Option<String>,
    /// Tag, `latest` when `None`.
    pub tag: Option<String>,
    /// Message.
    pub comment: Option<String>,
    /// Author.
    pub author: Option<String>,
    /// Dockerfile instructions applied to its configuration.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile.
    pub pause: bool,
}

impl Client {
    /// What is at a path of a container.
    ///
    /// # Errors
    /// 404 without the container or the path; the reply has no text then.
    pub async fn container_path_stat(&self, id: &str, path: &str) -> Result<PathStat> {
        let query = Query::new().with("path", path);
        let request = self
            .request(Method::HEAD, &of(id, "/archive"), &query, empty())
            .await?;
        stat_of(&self.stream(request).await?)
    }

    /// A path of a container as a tar: a directory with everything in it, or one file or link.
    ///
    /// # Errors
    /// 404 without the container or the path.
    pub async fn read_container_archive(
        &self,
        id: &str,
        path: &str,
    ) -> Result<(PathStat, ByteStream)> {
        let query = Query::new().with("path", path);
        let request = self
            .request(Method::GET, &of(id, "/archive"), &query, empty())
            .await?;
        let response = self.stream(request).await?;
        Ok((stat_of(&response)?, bytes_of(response, "archive")))
    }

    /// Unpacks a tar, compressed or not, in a directory of a container.
    ///
    /// # Errors
    /// 404 without the container or the directory, 400 for what is no archive or no directory, 403 where nothing may be
    /// written.
    pub async fn write_container_archive(
        &self,
        id: &str,
        options: &UploadOptions,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        let query = Query::new()
            .with("path", &options.path)
            .flag("noOverwriteDirNonDir", options.no_overwrite_dir_non_dir)
            .flag("copyUIDGID", options.copy_uid_gid);
        let body: Body = StreamBody::new(archive.map_ok(hyper::body::Frame::data)).boxed_unsync();
        let mut request = self
            .request(Method::PUT, &of(id, "/archive"), &query, body)
            .await?;
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-tar"),
        );
        self.fetch(request).await.map(drop)
    }

    /// Makes an image of a container's changes.
    ///
    /// # Errors
    /// 404 without the container, 400 for a name or a change that is none.
    pub async fn commit_container(&self, id: &str, options: &CommitOptions) -> Result<IdResponse> {
        let mut query = Query::new()
            .with("container", id)
            .maybe("repo", options.repository.as_deref())
            .maybe("tag", options.tag.as_deref())
            .maybe("comment", options.comment.as_deref())
            .maybe("author", options.author.as_deref())
            .with("pause", u8::from(options.pause));
        for change in &options.changes {
            query = query.with("changes", change);
        }
        let request = self
            .request(Method::POST, "/commit", &query, empty())
            .await?;
        let (_, reply) = self.fetch(request).await?;
        decode("/commit", &reply)
    }
}

fn stat_of<T>(response: &Response<T>) -> Result<PathStat> {
    let header = response.headers().get(PATH_STAT_HEADER);
    header
        .and_then(|value| PathStat::from_header(value.as_bytes()))
        .ok_or_else(|| ClientError::Protocol {
            path: "/archive".to_owned(),
            reason: format!("no readable {PATH_STAT_HEADER} header"),
        })
}
