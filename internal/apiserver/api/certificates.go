package api

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/certificatesigningrequest"
)

func certificates() Group {
	type request = *certificatesv1.CertificateSigningRequest
	return Group{Name: certificatesv1.GroupName, Versions: []Version{{Name: "v1", Resources: []Resource{
		{
			Name: "certificatesigningrequests", Singular: "certificatesigningrequest", ShortNames: []string{"csr"}, Mirrored: true,
			Kind: &certificatesv1.CertificateSigningRequest{}, List: &certificatesv1.CertificateSigningRequestList{},
			Columns: certificatesigningrequest.Columns,
			Stored: Objects[request]{
				Strategy: certificatesigningrequest.Strategy(),
				Complete: func(s *registry.Strategy[request], in Inputs) { s.Warn = certificatesigningrequest.Warner(in.Signed) },
				Row:      certificatesigningrequest.Row, Fields: certificatesigningrequest.Fields,
			},
			Subresources: []Subresource{
				{Name: "approval", Store: func(s *registry.Store, in Inputs) rest.Storage {
					return certificatesigningrequest.NewApproval(s, in.Clock)
				}},
				{Name: "status", Store: func(s *registry.Store, in Inputs) rest.Storage {
					return certificatesigningrequest.NewStatus(s, in.Clock)
				}},
			},
		},
	}}}}
}
