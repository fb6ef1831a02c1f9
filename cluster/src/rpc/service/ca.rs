//! Certificates.

use cluster_api::proto::ca_server::Ca;
use cluster_api::proto::{
    GetRootCertificateRequest, GetRootCertificateResponse, IssueCertificateRequest,
    IssueCertificateResponse, RenewCertificateRequest,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Calls, MANAGER, limits, peer, within};

#[async_trait]
impl Ca for Calls {
    async fn get_root_certificate(
        &self,
        _request: Request<GetRootCertificateRequest>,
    ) -> Result<Response<GetRootCertificateResponse>, Status> {
        let ca = self.backend(|b| b.ca.clone(), MANAGER)?;
        within(limits::CALL, async {
            let certificate = ca.root_certificate().await?.into_bytes().into();
            Ok(GetRootCertificateResponse { certificate })
        })
        .await
    }

    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let ca = self.backend(|b| b.ca.clone(), MANAGER)?;
        within(limits::COMMIT, ca.issue(request.into_inner())).await
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let ca = self.backend(|b| b.ca.clone(), MANAGER)?;
        let peer = peer(&request)?;
        within(limits::COMMIT, ca.renew(&peer, request.into_inner())).await
    }
}
