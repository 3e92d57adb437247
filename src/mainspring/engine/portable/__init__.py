"""The portable form: any request as a versioned JSON document and safetensors, and back, equal. No pickle, no source code."""
