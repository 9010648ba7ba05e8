Feature: Capacity
  Memory is reserved before it is allocated, and the ledger is exact whatever happens.

  @RES-4
  Scenario: By default a tenth stays free
    Given a manager with the default headroom
    Then available VRAM is the device less a tenth, or less 4 GiB where that is less

  @RES-3 @RES-4 @RES-6 @capacity
  Scenario: What does not fit is refused with need and have, and fits once there is room
    Given a manager on a device of 20 units with 4 units of headroom
    And weights small of 6 units
    And weights large of 10 units
    And the shard small is sealed
    When I seal large
    Then it fails with VRAM_OOM
    # 10 of image, 1 of check space; 16 less the 7 of the first.
    And the error says that 11 units were needed and 9 available
    And trying again may help
    And nothing was sealed and nothing is left of it
    And small still verifies
    When I release small
    And I seal large
    Then large still verifies

  @RES-6 @RES-4 @faults
  Scenario Outline: A driver without room is believed, and everything given back
    Given the shard llama is sealed
    And the device will <misbehave>
    When I seal gemma
    Then it fails with VRAM_OOM
    And nothing was sealed and nothing is left of it
    And llama still verifies
    When I seal gemma
    Then gemma still verifies

    Examples:
      | misbehave                   |
      | run out of memory late      |
      | say that no memory is free  |

  @RES-2 @faults
  Scenario Outline: Memory that is not proven to be the device's is refused
    Given a manager
    And the device will <lie>
    When I seal llama
    Then it fails with POLICY_VIOLATION
    And the message contains "vram_only"
    And nothing was sealed and nothing is left of it
    And policy_violation is a critical event

    Examples:
      | lie                         |
      | say that memory is managed  |
      | answer residency with zeros |

  @RES-2 @faults
  Scenario: Residency that is refuted on demand stops the manager
    Given the shard llama is sealed
    When I ask for the posture
    Then it succeeds
    When the device will say that memory is managed
    And I ask for the posture
    Then it fails with POLICY_VIOLATION
    And the manager has stopped for policy
    And policy_violation is a critical event

  @RES-8 @RES-4 @capacity
  Scenario: Two managers on one device share its room
    Given a manager on a device of 20 units with 0 units of headroom
    And a second manager on the same device
    And weights llama of 12 units
    And weights gemma of 12 units
    And the shard gemma is sealed on the second manager
    When I seal llama
    Then it fails with VRAM_OOM
    And nothing was sealed and nothing is left of it
    When I release gemma on the second manager
    And I seal llama
    Then it succeeds
