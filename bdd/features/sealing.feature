Feature: Sealing
  Weights are loaded into device memory, digested there, compared and signed; or nothing of them is left.

  @SEAL-1 @RES-1 @DIG-1 @AUD-1
  Scenario: Weights are sealed and found again
    Given a manager
    When I seal llama
    Then the seal of llama says how many bytes of which digest are on this device
    And the trail has, in this order: vram_allocated, vram_sealed
    And the driver counts the same bytes as the ledger
    When I execute llama
    Then the work read the weights of llama

  @SEAL-9
  Scenario: A seal says whether somebody vouched for the weights
    Given a manager
    When I seal llama
    Then the seal of llama says measured
    When I seal gemma expecting the digest of gemma
    Then the seal of gemma says expected

  @SEAL-9
  Scenario: A policy can demand that somebody vouches
    Given a manager whose policy requires expected digests
    When I seal llama
    Then it fails with POLICY_VIOLATION
    And the message contains "expected_digest"
    And nothing was sealed and nothing is left of it
    When I seal llama expecting the digest of llama
    Then it succeeds

  @SEAL-1 @SEAL-9 @AUD-1
  Scenario: Weights that are not the expected ones are refused and wiped
    Given a manager
    And weights poisoned that differ from llama in bit 0 of byte 69999
    When I seal poisoned expecting the digest of llama
    Then it fails with DIGEST_MISMATCH
    And the error tells the expected digest and the found one
    And nothing was sealed and nothing is left of it
    And the trail has, in this order: vram_allocated, seal_verification_failed, vram_wiped, vram_deallocated, vram_seal_failed
    And the manager is ready

  @SEAL-1 @faults
  Scenario: An upload that arrives changed is noticed though nobody vouched
    Given a manager
    And the device will corrupt an upload
    When I seal llama
    Then it fails with DIGEST_MISMATCH
    And nothing was sealed and nothing is left of it
    When I seal llama
    Then llama still verifies

  @SEAL-1 @SEAL-6 @SEAL-9
  Scenario: A file that changes between its digest and its seal is refused
    Given a manager
    And weights poisoned that differ from llama in bit 0 of byte 69999
    And a safetensors file with the weights of llama, whose digest I know
    When the file is overwritten with the weights of poisoned
    And I seal llama from the file, expecting its digest
    Then it fails with DIGEST_MISMATCH
    And nothing was sealed and nothing is left of it
    When the file is overwritten with the weights of llama
    And I seal llama from the file, expecting its digest
    Then the seal of llama says expected

  @DEV-5 @AUD-1
  Scenario: Sealed memory is mapped read-only, and the trail says so
    Given a manager
    When I seal llama
    Then the trail says whether llama is write-protected: true
    When I execute llama
    Then the work read the weights of llama

  @DEV-5 @AUD-1 @faults
  Scenario: Protection that the driver does not confirm is not claimed
    Given a manager
    And the device will not confirm a switch of access
    When I seal llama
    Then the trail says whether llama is write-protected: false
