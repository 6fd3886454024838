// Package v1alpha1 contains the kinds of the API group identity.lanyard.dev: the credentials that an authority has issued, and the
// keys that sign them. An authority makes the objects from its own records. They never contain a token or a private key. They cannot
// be changed through the API, and only a SigningKey can be created. Deleting an object revokes the credential or the key: the
// authority refuses it from then on.
//
// +k8s:deepcopy-gen=package
// +k8s:openapi-gen=true
// +k8s:openapi-model-package=dev.lanyard.apis.identity.v1alpha1
// +groupName=identity.lanyard.dev
package v1alpha1

//go:generate go tool -modfile=../../../hack/tools/go.mod deepcopy-gen --output-file zz_generated.deepcopy.go --go-header-file ../../../hack/boilerplate.txt .
//go:generate go tool -modfile=../../../hack/tools/go.mod openapi-gen --output-model-name-file zz_generated.model_name.go --go-header-file ../../../hack/boilerplate.txt --output-dir /dev --output-pkg null --output-file null --report-filename /dev/null .
