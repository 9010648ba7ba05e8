Feature: Working memory and the quarantine
  Scratch is counted and wiped like weights and never confused with them. What cannot be wiped is kept, up to a limit.

  @RES-10 @RES-5 @AUD-1
  Scenario Outline: Scratch is zeroed, counted, named and wiped
    Given a manager
    And an engine's stream
    When I allocate <bytes> bytes of scratch for <purpose>
    Then it succeeds
    And used VRAM is <bytes> bytes and 32 bytes, each in whole units
    And the trail names it as scratch for <purpose>
    And the scratch holds 0 everywhere
    When the engine enqueues 119 over all of the scratch
    And the engine closes its stream
    Then the scratch holds 119 everywhere
    When I release the scratch
    Then it succeeds
    And the trail has, in this order: vram_wiped, vram_deallocated
    And used VRAM is zero
    And the device has nothing left and freed nothing unwiped

    # Each with 32 bytes for the proof of zeros.
    Examples:
      | bytes  | purpose     |
      | 1      | kv_cache    |
      | 257    | activations |
      | 100000 | workspace   |

  @RES-10 @RES-6 @capacity
  Scenario Outline: Scratch that cannot be is refused and leaves nothing
    Given a manager on a device of 20 units with 0 units of headroom
    When I allocate <amount> of scratch for workspace
    Then it fails with <code>
    And used VRAM is zero
    When I go on
    And I allocate 18 units of scratch for workspace
    Then it succeeds

    Examples:
      | amount                     | code           |
      | 0 bytes                    | INVALID_PARAMS |
      | 20 units                   | VRAM_OOM       |
      | 18446744073709551615 bytes | VRAM_OOM       |

  @RES-10
  Scenario: Scratch is no shard, whatever it is called
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I allocate 1000 bytes of scratch for kv_cache
    Then 1 shard is resident
    When I release by the name that the trail gives the scratch
    Then it fails with INVALID_PARAMS
    And used VRAM is as before
    And the scratch holds 0 everywhere

  @RES-10 @VER-10
  Scenario: The wipe of scratch waits for the engine that uses it
    Given a manager
    And an engine's stream
    When I allocate 5000 bytes of scratch for kv_cache
    And the scratch is told of the engine's stream
    And the engine enqueues 85 over all of the scratch
    And the scratch is dropped
    Then the engine has 0 operations to do
    And used VRAM is zero
    And the device has nothing left and freed nothing unwiped

  @RES-10 @SCR-2 @VER-10 @faults @late
  Scenario: Scratch whose engine cannot be waited for is not freed
    Given a manager
    And an engine's stream
    When I allocate 5000 bytes of scratch for kv_cache
    And the scratch is told of the engine's stream
    And the engine enqueues 85 over all of the scratch
    And the device will fail two synchronisations
    And I release the scratch
    Then it fails with WIPE_FAILED
    And its memory is quarantined as residue
    And the engine has 1 operation to do

  @RES-10 @SCR-2 @faults
  Scenario Outline: Scratch that was not proven zero is kept
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I allocate 5000 bytes of scratch for activations
    And the device will <misbehave>
    And I release the scratch
    Then it fails with WIPE_FAILED
    And used VRAM is as before
    And shard_quarantined is a critical event
    And the manager is ready
    And part-0 still verifies

    Examples:
      | misbehave         |
      | skip a zero proof |
      | fail a fill       |

  @RES-10 @VER-5
  Scenario: A stopped manager gives no scratch and takes back what it gave
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I allocate 1000 bytes of scratch for kv_cache
    And bit 0 of byte 0 of part-0 flips in VRAM
    And I verify part-0
    Then it fails with SEAL_VERIFICATION_FAILED
    When I go on
    And I allocate 1000 bytes of scratch for kv_cache
    Then it fails with MANAGER_STOPPED
    When I go on
    And I release the scratch
    Then it succeeds

  @RES-10 @SCR-3
  Scenario: A shutdown leaves scratch to its holder
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I allocate 1000 bytes of scratch for kv_cache
    And I shut down within 1000 ms
    Then the shutdown left what is in use
    And used VRAM is 1000 bytes and 32 bytes, each in whole units
    When the scratch is dropped
    Then used VRAM is zero
    And the device has nothing left and freed nothing unwiped

  @SCR-2 @SCR-3 @faults
  Scenario: A shutdown that cannot wipe everything says what is left
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the device will skip a fill
    When I shut down within 1000 ms
    Then the shutdown left residue and wiped the rest
    And the manager has stopped for shutdown

  @SCR-2 @faults
  Scenario: Residue within the limit of the quarantine does not stop the manager
    Given a manager with a quarantine limit of one and a half shards of 70000 bytes
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the device will skip a fill
    When I release part-0
    Then it fails with WIPE_FAILED
    And its memory is quarantined as residue
    And the manager is ready
    And part-1 still verifies

  @SCR-2 @faults
  Scenario: Residue beyond the limit of the quarantine stops the manager
    Given a manager with a quarantine limit of one and a half shards of 70000 bytes
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the device will skip a fill
    When I release part-0
    Then it fails with WIPE_FAILED
    When I go on
    And the device will skip a fill
    And I release part-1
    Then it fails with WIPE_FAILED
    And the manager has stopped for an-untrusted-device
    And manager_stopped is a critical event
    When I go on
    And I seal part-2 from llama
    Then it fails with MANAGER_STOPPED

  @SCR-2 @VER-5
  Scenario: Evidence is no residue: it does not count against the limit
    Given a manager that quarantines only the shard, with a quarantine limit of 0 bytes
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When bit 0 of byte 0 of part-0 flips in VRAM
    And I verify part-0
    Then it is an integrity failure of part-0 that covers byte 0
    And part-0 is quarantined as evidence
    And the manager is ready
    When I go on
    And I release part-0
    Then used VRAM is zero
