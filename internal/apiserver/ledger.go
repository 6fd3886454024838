package apiserver

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/ledger"
)

// newLedger returns the journal of issued credentials. It learns of each batch of records before the write returns.
func newLedger(o *Options, s *storage) (*issuance.Journal, error) {
	if o.ServiceAccounts.AcceptUnrecorded {
		klog.Warning("Tokens without a record are accepted: until this option is removed, a stolen signing key is enough to make valid tokens")
	}
	batches, feed, closeBatches, err := s.mirror.Append(s.unserved(issuance.Resource, issuance.Codec{}), issuance.Prefix, issuance.NewObject, issuance.NewList)
	if err != nil {
		return nil, err
	}
	s.closeUnserved.add(closeBatches)
	journal := issuance.New(issuance.Config{
		Storage: batches, Feed: feed, Memory: ledger.NewMemory(clock.RealClock{}), Clock: clock.RealClock{},
		AcceptUnrecorded: o.ServiceAccounts.AcceptUnrecorded,
	})
	feed.Listen(journal)
	return journal, nil
}

// unserved returns the configuration of the storage of a resource that is not served, and that no scheme knows.
func (s *storage) unserved(resource schema.GroupResource, codec runtime.Codec) *storagebackend.ConfigForResource {
	config := s.backend
	config.Codec = codec
	if s.library.ResourceTransformers != nil {
		config.Transformer = s.library.ResourceTransformers.TransformerForResource(resource)
	}
	return config.ForResource(resource)
}
